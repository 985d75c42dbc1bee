"""What a vendor keeps: keys, batches, and whole stores, equal to the last field or refused by name before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hosted import Hosted

from openproto import AsyncMemory, MemoryRecord
from openproto.portable.bringing import Result
from openproto.portable.journal import open_journal
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration
from openproto.portable.surveying import Survey, survey


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "store.db", embedder="none") as client:
        yield client


ANEW = {"id", "created_at", "updated_at", "key", "supersedes"}


async def moved(source: AsyncMemory, target: AsyncMemory, name: str, report: Path) -> tuple[Survey, Result]:
    plan = await survey(source, target, ["ada"], Mock())
    file, journal = open_journal(report, {})
    with file:
        return plan, await Migration(source, target, plan, journal, Matching(name)).run(Mock())


async def shown(memory: AsyncMemory) -> list[Any]:
    """Return all of a user's records, and which of them were current at several moments."""
    records = [record async for record in memory.iter("ada")]
    changed = {record.updated_at for record in records} - {None}
    moments = sorted(changed | {record.created_at for record in records} | {datetime.now(UTC)})  # type: ignore[type-var]
    current = [[record.id async for record in memory.iter("ada", as_of=moment)] for moment in moments]
    return [[record.model_dump(exclude={"version", "status"}) for record in records], current]


async def test_a_vendor_gets_the_last_field(store: AsyncMemory, memory: AsyncMemory, tmp_path: Path) -> None:
    old = await store.add("lives in Paris", user_id="ada", scope="home", tags=["a"], key="city", x_app={"n": [1, None]})
    tea = await store.add("likes tea", user_id="ada", confidence=0.5, source={"app": "notes"})
    new = await store.add("lives in Oslo", user_id="ada", supersedes=[old.id])
    await store.update(old.id, tags=["b"])
    await store.update(new.id, supersedes=[tea.id])  # from this moment on
    gone = await store.add("likes nothing", user_id="ada", supersedes=[tea.id])
    await store.delete(gone.id)
    before = await shown(store)
    there = tmp_path / "there"
    plan, result = await moved(store, memory, "sqlite", there)
    if not plan.restores:
        assert set(plan.cannot_keep) <= ANEW | {"moment of supersession"}
        return
    assert (dict(plan.cannot_keep), result.brought, result.equal, dict(result.faults)) == ({}, 3, 3, {})
    assert (result.ids, await shown(memory)) == ({}, before)
    assert await memory.wait_for_ingest([old.id], "ada") == [await memory.get(user_id="ada", key="city")]


async def test_a_batch_is_few_requests_in_order(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    route, first, second = hosted.batch
    items = [{"content": f"note {n}", "user_id": user} for user in ("ann", "bob") for n in range(60)]
    outcomes = await memory.add_many(items)
    written = [(one.content, one.user_id) for one in outcomes if isinstance(one, MemoryRecord)]
    assert written == [(item["content"], item["user_id"]) for item in items]
    if route:
        assert emulator.counters.by_route[route] == first + second
        assert emulator.counters.by_route[hosted.adds] in (0, first + second)


async def test_a_write_can_wait_until_it_is_processed(
    hosted: Hosted, other: AsyncMemory, emulator: Any, tmp_path: Path
) -> None:
    emulator.lag = 0.1
    async with hosted.client(emulator, tmp_path, **({"wait": hosted.wait} if hosted.wait else {})) as memory:
        record = await memory.add("one", user_id="ann")
        several = await memory.add_many([{"content": text, "user_id": "ann"} for text in ("two", "three")])
        changed = await memory.update(record.id, content="four")
        at_once = bool(hosted.wait) or not hosted.processes_later
        assert [getattr(one, "status", one) == "done" for one in (record, *several, changed)] == [at_once] * 4
        if hosted.wait:
            emulator.lag = 0.5
            adding = asyncio.create_task(memory.add("milk", user_id="bob"))
            while not (found := (await other.list("bob")).items):
                await asyncio.sleep(0.01)
            await other.delete(found[0].id)
            assert (await adding).content == "milk"
            emulator.lag = 60.0
            with pytest.raises(TimeoutError):  # which cancels it at once
                await asyncio.wait_for(memory.add("tea", user_id="ann"), 0.5)


async def test_a_memory_is_done_when_a_search_shows_it_whoever_wrote_it(
    memory: AsyncMemory, other: AsyncMemory, emulator: Any
) -> None:
    emulator.lag = 0.3
    record = await memory.add("tea", user_id="ann")
    for content, asked in (("tea", other), ("green tea", memory), ("black tea", other)):
        if content != record.content:
            record = await other.update(record.id, content=content)
        (done,) = await asked.wait_for_ingest([record.id], "ann", timeout=5)
        assert [hit.memory for hit in await asked.search("tea", "ann")] == [done]
        assert done.content == content
