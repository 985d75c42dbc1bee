"""Without a file: what Memsy itself can do, and clear words about the rest."""

from __future__ import annotations

import importlib
import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import memsy
import pytest
from memsy import AsyncMemsyClient, EventPayload
from openproto_adapters.memsy import Memsy
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import (
    AsyncMemory,
    ConflictError,
    MemoryInput,
    NotFoundError,
    ProviderUnavailableError,
    UnsupportedCapabilityError,
)
from openproto.emulation import user_token
from openproto.requests import Filters, ListQuery, MemoryUpdate, RecordRef


@pytest.mark.promise(34)
async def test_what_memsy_cannot_do_is_undeclared_and_refused_before_any_request(
    plain: AsyncMemory, emulator: Emulator
) -> None:
    declared = await plain.capabilities()
    assert set(declared.verbs) == {"add", "get", "search", "context", "capabilities"}
    support = declared.x_openproto.support
    for name in ("list", "update", "delete", "audit", "supports_supersession"):
        assert support[name] == "none"
    assert declared.features.supports_supersession is False
    before = emulator.counters.requests
    for verb, call in (
        ("delete", lambda: plain.delete("some-id")),
        ("update", lambda: plain.update("some-id", tags=["x"])),
        ("list", lambda: plain.list("ann")),
        ("delete", lambda: plain.delete_all("ann")),
        ("supersedes", lambda: plain.add("tea", user_id="ann", supersedes=["some-id"])),
    ):
        with pytest.raises(UnsupportedCapabilityError, match=verb):
            await call()
    assert emulator.counters.requests == before


async def test_the_provider_itself_refuses_them_and_says_what_would_help() -> None:
    provider = Memsy("http://127.0.0.1:9/v1", api_key="key")
    calls: tuple[Any, ...] = (
        provider.delete(RecordRef(id="x")),
        provider.update(RecordRef(id="x"), MemoryUpdate(tags=["x"])),
        provider.list(ListQuery(user_id="ann")),
        provider.delete_all(Filters(user_id="ann")),
        provider.add(MemoryInput(content="tea", user_id="ann", supersedes=["x"]), idempotency_key="key"),
    )
    for call in calls:
        with pytest.raises(UnsupportedCapabilityError, match="path="):
            await call


async def test_every_field_comes_back_from_memsy_itself(plain: AsyncMemory, emulator: Emulator) -> None:
    emulator.extract = lambda text: [f"The user said: {text.lower()}"]
    now = datetime.now(UTC)
    fields: dict[str, Any] = {
        "scope": "kitchen/drinks",
        "tags": ["tea", "Öl"],
        "source": {"app": "notebook", "type": "imported", "ref": "page 7"},
        "confidence": 0.1 + 0.2,
        "valid_from": now - timedelta(days=1),
        "valid_to": now + timedelta(days=1),
        "x_note": {"list": [1, None]},
    }
    added = await plain.add("Ann LIKES tea ", user_id="ünñ/../x?y", **fields)
    (record,) = await plain.wait_for_ingest([added.id], "ünñ/../x?y", timeout=10)
    assert record == added.model_copy(update={"status": "done"})
    assert (record.content, record.scope, record.confidence) == ("Ann LIKES tea ", "kitchen/drinks", 0.1 + 0.2)
    (hit,) = await plain.search("likes tea", "ünñ/../x?y", scope="kitchen", tag="Öl")
    assert hit.memory == record
    assert await plain.search("likes tea", "ünñ/../x?y", scope="garden") == []
    assert await plain.search("likes tea", "ünñ/../x?y", as_of=now + timedelta(days=2)) == []


async def test_a_memory_can_be_read_by_whoever_added_it_before_memsy_shows_it(
    plain: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    emulator.lag = 60.0
    record = await plain.add("tea", user_id="ann")
    assert await plain.get(record.id, user_id="ann") == record
    with pytest.raises(ProviderUnavailableError, match="not processed this memory yet"):
        await other.get(record.id)
    with pytest.raises(NotFoundError):
        await other.get(record.id[:-1] + ("0" if record.id[-1] != "0" else "1"))


async def test_a_memory_that_memsy_makes_nothing_of_has_failed(plain: AsyncMemory, emulator: Emulator) -> None:
    emulator.extract = lambda text: []
    emulator.lag = 0.0
    record = await plain.add("hm", user_id="ann")
    assert (await plain.get(record.id)).status == "failed"


async def test_a_key_is_the_same_memory_here_and_for_other_clients(
    plain: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await plain.add("tea", user_id="ann", idempotency_key="key")
    assert (await plain.add("tea", user_id="ann", idempotency_key="key")).id == record.id
    await plain.wait_for_ingest([record.id], "ann", timeout=10)
    assert (await other.add("tea", user_id="ann", idempotency_key="key")).id == record.id
    for client in (plain, other):
        with pytest.raises(ConflictError):
            await client.add("coffee", user_id="ann", idempotency_key="key")
    assert len(emulator.events) == 1


async def test_fields_that_memsy_has_no_room_for_are_refused(plain: AsyncMemory, emulator: Emulator) -> None:
    tags = [f"{n:03} {'t' * 120}" for n in range(64)]
    with pytest.raises(UnsupportedCapabilityError, match="4096"):
        await plain.add("tea", user_id="ann", tags=tags)
    short, long = await plain.add_many(
        [{"content": "tea", "user_id": "ann"}, {"content": "tea", "user_id": "ann", "tags": tags}]
    )
    assert not isinstance(short, Exception)
    assert isinstance(long, UnsupportedCapabilityError)
    assert len(emulator.events) == 1


async def test_what_other_programs_sent_is_passed_over(plain: AsyncMemory, raw: AsyncMemsyClient) -> None:
    actor = user_token("ann")
    await raw.ingest(
        [
            EventPayload(actor, "their-session", "user_message", "tea of theirs"),
            EventPayload(actor, "their-session", "app_event", "tea of theirs", metadata="no JSON"),
            EventPayload(actor, "their-session", "tool_result", "tea of theirs", metadata='{"plan": "pro"}'),
        ]
    )
    record = await plain.add("tea of ours", user_id="ann")
    await plain.wait_for_ingest([record.id], "ann", timeout=10)
    assert [hit.memory.content for hit in await plain.search("tea", "ann")] == ["tea of ours"]


@pytest.mark.parametrize("client", [memsy.MemsyClient, memsy.AsyncMemsyClient])
def test_the_sdk_still_has_no_way_to_delete_or_change(client: type) -> None:
    names = {name for name in dir(client) if not name.startswith("_")}
    assert names == {"close", "health", "ingest", "search", "status"}, "there is more now: is anything native?"
    for resource in ("MemoriesResource", "AsyncMemoriesResource"):
        module: Any = importlib.import_module("memsy.resources.memories")
        methods = {name for name, _ in inspect.getmembers(getattr(module, resource), inspect.isfunction)}
        assert methods - {"__init__"} == {"get", "list", "stats"}
