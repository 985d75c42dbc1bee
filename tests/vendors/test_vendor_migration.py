"""From a store to a vendor and back: what cannot be kept is named before anything is written, and the rest is equal."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openproto import AsyncMemory
from openproto.portable.bringing import Result
from openproto.portable.journal import open_journal
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration, undo
from openproto.portable.surveying import Survey, survey

ANEW = {"id", "created_at", "updated_at", "moment of supersession"}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "store.db", embedder="none") as client:
        yield client


def quiet(done: int, total: int | None) -> None:
    pass


async def moved(source: AsyncMemory, target: AsyncMemory, name: str, report: Path) -> tuple[Survey, Result]:
    plan = await survey(source, target, ["ada"], quiet)
    file, journal = open_journal(report, {})
    with file:
        return plan, await Migration(source, target, plan, journal, Matching(name), anew=True).run(quiet)


def told(record: Any) -> Any:
    kept = {"content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key", "x-app"}
    return record.model_dump(include=kept)


async def test_what_went_to_a_vendor_and_back_is_equal_in_all_that_can_be_kept(
    store: AsyncMemory, memory: AsyncMemory, tmp_path: Path
) -> None:
    old = await store.add("lives in Paris", user_id="ada", scope="home", tags=["a"], key="city", x_app={"n": [1, None]})
    await store.add("likes tea", user_id="ada", confidence=0.5, source={"app": "notes"}, supersedes=[])
    await store.add("lives in Oslo", user_id="ada", supersedes=[old.id])
    await store.update(old.id, tags=["b"])
    before = [record async for record in store.iter("ada")]
    there = tmp_path / "there"
    plan, result = await moved(store, memory, "sqlite", there)
    assert set(plan.cannot_keep) <= (set() if plan.restores else ANEW)
    assert (result.brought, result.equal, dict(result.faults)) == (3, 3, {})
    _, again = await moved(store, memory, "sqlite", there)
    assert (again.brought, again.equal, dict(again.faults)) == (0, 3, {})
    async with AsyncMemory("sqlite", path=tmp_path / "back.db", embedder="none") as back:
        _, result = await moved(memory, back, "vendor", tmp_path / "back")
        assert (result.brought, dict(result.faults)) == (3, {})
        after = [record async for record in back.iter("ada")]
        assert [told(record) for record in after] == [told(record) for record in before]
        current = [[hit.memory.content for hit in await each.search("lives in", "ada")] for each in (store, back)]
        assert current[0] == current[1] == ["lives in Oslo"]
    mine = await memory.add("mine", user_id="ada")
    file, journal = open_journal(there, {})
    with file:
        assert (await undo(memory, journal, Matching("sqlite"), quiet)).removed == 3
    assert [record.id async for record in memory.iter("ada")] == [mine.id]
