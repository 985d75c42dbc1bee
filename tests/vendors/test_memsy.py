"""Memsy with a file, where what it cannot do is emulated, and without one, where it shows what it made of an event."""

from __future__ import annotations

import asyncio
import dataclasses
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from memsy import AsyncMemsyClient, EventPayload
from openproto_adapters.memsy import Memsy
from openproto_adapters.memsy.ids import EventId
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import AsyncMemory, MemoryRecord, errors
from openproto.emulation import user_token

INGEST, STATUS, SEARCH = "POST /v1/ingest", "POST /v1/status", "POST /v1/search"
TOO_MANY = [f"{n:03} {'t' * 120}" for n in range(64)]
"""More tags than fit into an event's metadata."""


@pytest.fixture
async def raw(emulator: Emulator) -> AsyncIterator[AsyncMemsyClient]:
    async with AsyncMemsyClient(f"{emulator.url}/v1", emulator.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.db"


@pytest.fixture
async def plain(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory(Memsy(**emulator.provider_options()), retries=0) as client:
        yield client


stranger = plain


async def added(memory: AsyncMemory, *contents: str, user_id: str = "ann", **fields: Any) -> list[MemoryRecord]:
    records = [await memory.add(content, user_id=user_id, **fields) for content in contents]
    return await memory.wait_for_ingest([record.id for record in records], user_id, timeout=10)


async def found(memory: AsyncMemory, query: str) -> list[str]:
    return [result.memory.content for result in await memory.search(query, "ann")]


# With a file


async def test_many_are_asked_for_together_and_once(memory: AsyncMemory, emulator: Emulator, path: Path) -> None:
    emulator.lag = 0.3
    record = await memory.add("Ann likes tea", user_id="ann")
    (done,) = await memory.wait_for_ingest([record.id], "ann", timeout=10)
    assert done == record.model_copy(update={"status": "done"})
    asked = emulator.counters.by_route[STATUS]
    assert (await memory.get(record.id)).status == "done"
    assert emulator.counters.by_route[STATUS] == asked, "what has ended is asked for again"
    emulator.lag = 0.0
    emulator.failing.add("bad")
    bad = await memory.add("bad", user_id="ann")
    with pytest.raises(errors.ProviderError):
        await memory.wait_for_ingest([bad.id], "ann", timeout=10)
    outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(50)])
    before = emulator.counters.by_route[STATUS]
    await memory.wait_for_ingest([getattr(one, "id", "") for one in outcomes], "ann", timeout=30)
    assert emulator.counters.by_route[STATUS] - before < 20, "who waits for many asks for many at once"
    emulator.lag = 60.0
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, wait=0.1)) as hasty:
        assert (await hasty.add("late", user_id="ann")).status == "queued"


async def test_two_clients_keep_one_memory(memory: AsyncMemory, emulator: Emulator, path: Path, tmp_path: Path) -> None:
    # Under another name, so that no lock of this process keeps the two apart.
    link = tmp_path / "link.db"
    await asyncio.to_thread(link.symlink_to, path)
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=link), retries=0) as two:
        for number in range(5):
            calls = (client.add("tea", user_id="ann", idempotency_key=f"same {number}") for client in (memory, two))
            first, second = await asyncio.gather(*calls)
            assert first == second
            texts = ((client, text) for client, text in ((memory, "a"), (two, "b")))
            adds = (client.add(text, user_id="ann", idempotency_key=f"other {number}") for client, text in texts)
            outcomes = await asyncio.gather(*adds, return_exceptions=True)
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "MemoryRecord"]
        assert len((await memory.list("ann")).items) == 10
    assert len(emulator.events) == 15, "what is sent again under its key is the same event"


async def test_what_is_deleted_leaves_nothing_behind(memory: AsyncMemory, path: Path, raw: AsyncMemsyClient) -> None:
    records = await added(memory, *(f"the ship number {n}" for n in range(40)), "the zeppelin")
    for record in records[:35]:
        await memory.delete(record.id)
    left = [f"the ship number {n}" for n in range(35, 40)]
    assert sorted(await found(memory, "ship number")) == [*left, "the zeppelin"]
    assert await memory.delete_all("ann") == 6
    assert (await raw.search("zeppelin", actor_id=user_token("ann"))).results, "Memsy itself forgets nothing"
    await memory.aclose()
    assert b"zeppelin" not in await asyncio.to_thread(path.read_bytes)
    assert stat.S_IMODE((await asyncio.to_thread(path.stat)).st_mode) == 0o600


async def test_a_new_text_is_a_new_event_and_other_changes_are_none(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.extract = lambda text: [f"The user said: {text.lower()}", "The user said something"]
    (record,) = await added(memory, "Ann  DRINKS\tcoffee ", tags=["Öl"], scope="kitchen", x_note={"a": [1]})
    (hit,) = await memory.search("drinks coffee", "ann")
    assert hit.memory == record == await memory.get(record.id)
    changed = await memory.update(record.id, content="Ann drinks cocoa")
    assert (changed.id, changed.status, changed.scope) == (record.id, "queued", "kitchen")
    await memory.wait_for_ingest([record.id], "ann")
    assert await found(memory, "cocoa") == ["Ann drinks cocoa"]
    assert await memory.search("coffee", "ann", min_score=0.9) == [], "the old text still scores"
    before = emulator.counters.by_route[INGEST]
    with pytest.raises(errors.PayloadTooLargeError, match="7999"):
        await memory.update(record.id, content="c" * 8000)
    await memory.update(record.id, tags=TOO_MANY)
    assert emulator.counters.by_route[INGEST] == before
    assert (await memory.get(record.id)).tags == TOO_MANY


async def test_what_memsy_makes_nothing_of_is_kept(memory: AsyncMemory, plain: AsyncMemory, emulator: Emulator) -> None:
    emulator.extract = lambda text: []
    emulator.lag = 0.0
    (record,) = await added(memory, "the zeppelin sails", tags=TOO_MANY)
    assert (record.status, record.tags) == ("done", TOO_MANY)
    assert [event.metadata for event in emulator.events.values()] == [None], "there is no room for so much"
    before = emulator.counters.by_route[SEARCH]
    assert await found(memory, "zeppelin") == ["the zeppelin sails"]
    assert emulator.counters.by_route[SEARCH] == before + 1, "Memsy had no more to give"
    assert await found(memory, "zebra") == []
    lost = await plain.add("hm", user_id="ann")
    assert (await plain.get(lost.id)).status == "failed"


async def test_a_file_that_cannot_be_used_is_named(emulator: Emulator, path: Path) -> None:
    await asyncio.to_thread(path.write_text, "this is no database" * 100)
    for unusable in (path, path.parent):
        with pytest.raises(errors.ProviderError, match="path="):
            await Memsy(**emulator.provider_options(), path=unusable).open()


# Without a file


async def test_what_memsy_cannot_do_is_refused_with_a_hint(plain: AsyncMemory, emulator: Emulator) -> None:
    declared = await plain.capabilities()
    assert set(declared.verbs) == {"add", "get", "search", "context", "capabilities"}
    support = declared.x_openproto.support
    assert {support[name] for name in ("list", "update", "delete", "audit", "supports_supersession")} == {"none"}
    before = emulator.counters.requests
    for verb, call in (
        ("delete", plain.delete("some-id")),
        ("update", plain.update("some-id", tags=["x"])),
        ("list", plain.list("ann")),
        ("delete", plain.delete_all("ann")),
        ("supersedes", plain.add("tea", user_id="ann", supersedes=["some-id"])),
    ):
        with pytest.raises(errors.UnsupportedCapabilityError, match=f"{verb}.*path="):
            await call
    with pytest.raises(errors.UnsupportedCapabilityError, match="4096"):
        await plain.add("tea", user_id="ann", tags=TOO_MANY)
    assert emulator.counters.requests == before
    items = [{"content": "tea", "user_id": "ann"}, {"content": "tea", "user_id": "ann", "tags": TOO_MANY}]
    assert [type(one) for one in await plain.add_many(items)] == [MemoryRecord, errors.UnsupportedCapabilityError]


async def test_an_added_memory_can_be_read(plain: AsyncMemory, stranger: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 60.0
    record = await plain.add("tea", user_id="ann", idempotency_key="key")
    assert await plain.get(record.id, user_id="ann") == record
    with pytest.raises(errors.ProviderUnavailableError, match="not processed this memory yet"):
        await stranger.get(record.id)
    own = EventId.read(record.id)
    assert own is not None
    with pytest.raises(errors.NotFoundError):
        await stranger.get(dataclasses.replace(own, event="0" * 32).id)
    for event in emulator.events.values():
        event.ends_at = 0.0
    for client in (plain, stranger):
        assert (await client.add("tea", user_id="ann", idempotency_key="key")).id == record.id
        with pytest.raises(errors.ConflictError):
            await client.add("coffee", user_id="ann", idempotency_key="key")
    assert len(emulator.events) == 1


async def test_foreign_events_are_passed_over(plain: AsyncMemory, raw: AsyncMemsyClient, emulator: Emulator) -> None:
    emulator.lag = 0.0
    actor, texts = user_token("ann"), (None, "no JSON", '{"plan": "pro"}')
    await raw.ingest([EventPayload(actor, "theirs", "app_event", "tea of theirs", metadata=text) for text in texts])
    await added(plain, "tea of ours")
    assert await found(plain, "tea") == ["tea of ours"]
    await raw.ingest([EventPayload(actor, "s" * 22, "user_message", "tea", metadata='{"openproto": "no envelope"}')])
    with pytest.raises(errors.ProviderError, match="damaged"):
        await plain.search("tea", "ann")


# Isolation: Memsy's own calls reach the whole organization unless they name an actor


async def test_every_search_names_its_actor(
    memory: AsyncMemory, plain: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    search = Emulator.search
    monkeypatch.setattr(Emulator, "search", lambda self, request: asked.append(request.json) or search(self, request))
    users = ("ünñ ser", "../x?y#z", "*", "%2e%2e", "ann", "a" * 256)
    for user in users:
        for client in (memory, plain):
            (done,) = await added(client, f"note of {user}", user_id=user)
            assert {hit.memory.content for hit in await client.search("note", user)} == {done.content}
            await client.context("note", user)
    assert {body.get("actor_id") for body in asked} == {user_token(user) for user in users}
    # A server that loses the filter by actor.
    everything = emulator._formed
    monkeypatch.setattr(emulator, "_formed", lambda now, actor: everything(now, None))
    for client in (memory, plain):
        with pytest.raises(errors.ProviderError, match="another user's memory"):
            await client.search("note", "ann")


async def test_health_needs_the_key(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await memory.health()).status == "ok"
    for path, status in (("/v1/health", 503), ("/v1/console/memories", 401)):
        emulator.faults.next(Status(status), path=path)
        assert (await memory.health()).status == "unavailable"
    monkeypatch.delenv("MEMSY_BASE_URL", raising=False)
    with pytest.raises(errors.InvalidRequestError, match="MEMSY_BASE_URL"):
        await AsyncMemory("memsy", api_key="k").search("tea", "ann")
