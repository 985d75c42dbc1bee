"""With a file: what Memsy cannot do is emulated, whatever Memsy makes of the texts."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from memsy import AsyncMemsyClient
from openproto_adapters.memsy import Memsy
from openproto_adapters.memsy.records import PAGE, Records
from openproto_conformance.emulators import Latency
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import (
    AsyncMemory,
    ConflictError,
    IngestionTimeoutError,
    MemoryInput,
    MemoryRecord,
    NotFoundError,
    PayloadTooLargeError,
    ProviderError,
)
from openproto.emulation import Stored, user_token


async def found(memory: AsyncMemory, query: str, user_id: str = "ann") -> list[str]:
    return [result.memory.content for result in await memory.search(query, user_id)]


@pytest.mark.promise(33)
async def test_a_memory_is_queued_until_memsy_has_processed_it(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 0.3
    record = await memory.add("Ann likes tea", user_id="ann")
    assert (record.status, (await memory.get(record.id)).status) == ("queued", "queued")
    assert [one.status for one in (await memory.list("ann")).items] == ["queued"]
    (done,) = await memory.wait_for_ingest([record.id], "ann", timeout=10)
    assert done == record.model_copy(update={"status": "done"})
    asked = emulator.counters.by_route["POST /v1/status"]
    assert (await memory.get(record.id)).status == "done"
    assert emulator.counters.by_route["POST /v1/status"] == asked, "what has ended is asked for again"


async def test_waiting_for_many_asks_for_many_at_once(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 0.0
    outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(250)])
    ids = [record.id for record in outcomes if isinstance(record, MemoryRecord)]
    assert {record.status for record in await memory.wait_for_ingest(ids, "ann", timeout=30)} == {"done"}
    assert emulator.counters.by_route["POST /v1/status"] < 100


async def test_waiting_ends_when_the_time_is_over_or_the_processing_failed(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.failing.add("bad")
    bad = await memory.add("bad", user_id="ann")
    with pytest.raises(ProviderError):
        await memory.wait_for_ingest([bad.id], "ann", timeout=10)
    assert (await memory.get(bad.id)).status == "failed"
    emulator.lag = 60.0
    late = await memory.add("late", user_id="ann")
    with pytest.raises(IngestionTimeoutError):
        await memory.wait_for_ingest([late.id], "ann", timeout=0.2)


async def test_a_write_can_wait_until_it_is_processed_but_not_for_ever(emulator: Emulator, path: Path) -> None:
    emulator.lag = 0.1
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, wait=10.0)) as memory:
        record = await memory.add("one", user_id="ann")
        several = await memory.add_many([{"content": text, "user_id": "ann"} for text in ("two", "three")])
        changed = await memory.update(record.id, content="four")
    assert {one.status for one in (record, *several, changed) if isinstance(one, MemoryRecord)} == {"done"}
    assert all(isinstance(one, MemoryRecord) for one in several)
    emulator.lag = 60.0
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, wait=0.1)) as memory:
        assert (await memory.add("five", user_id="ann")).status == "queued"


async def test_equal_memories_stay_apart_though_memsy_drops_repeats_within_a_minute(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    records = [await memory.add("tea", user_id="ann") for _ in range(2)]
    outcomes = await memory.add_many([{"content": "tea", "user_id": "ann"}] * 2)
    records += [one for one in outcomes if isinstance(one, MemoryRecord)]
    assert len({record.id for record in records}) == len(emulator.events) == 4


async def test_an_add_that_is_sent_again_is_the_same_event(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.faults.next(Latency(5.0), path="/v1/ingest")
    adding = asyncio.create_task(memory.add("tea", user_id="ann", idempotency_key="key"))
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.by_route["POST /v1/ingest"] == 1)
    adding.cancel()
    await asyncio.wait([adding])
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.disconnects == 1)
    assert (await memory.list("ann")).items == []
    assert len(emulator.events) == 1, "Memsy has it already"
    record = await memory.add("tea", user_id="ann", idempotency_key="key")
    assert len(emulator.events) == 1
    assert await memory.add("tea", user_id="ann", idempotency_key="key") == record
    with pytest.raises(ConflictError):
        await memory.add("coffee", user_id="ann", idempotency_key="key")
    await memory.delete(record.id)
    with pytest.raises(ConflictError, match="deleted"):
        await memory.add("tea", user_id="ann", idempotency_key="key")


async def test_two_clients_with_one_key_keep_one_memory(emulator: Emulator, path: Path, tmp_path: Path) -> None:
    # Under another name, so that no lock of this process keeps the two apart.
    folder = tmp_path / "link"
    await asyncio.to_thread(folder.symlink_to, path.parent)
    options = emulator.provider_options()
    async with (
        AsyncMemory(Memsy(**options, path=path), retries=0) as one,
        AsyncMemory(Memsy(**options, path=folder / path.name), retries=0) as two,
    ):
        for number in range(5):
            first, second = await asyncio.gather(
                *(client.add("tea", user_id="ann", idempotency_key=f"same {number}") for client in (one, two))
            )
            assert first == second
            outcomes = await asyncio.gather(
                one.add("a", user_id="ann", idempotency_key=f"not the same {number}"),
                two.add("b", user_id="ann", idempotency_key=f"not the same {number}"),
                return_exceptions=True,
            )
            assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConflictError", "MemoryRecord"]
        assert len((await one.list("ann")).items) == 10


async def test_what_is_deleted_is_never_shown_again_and_leaves_no_text_behind(
    memory: AsyncMemory, emulator: Emulator, path: Path, raw: AsyncMemsyClient
) -> None:
    record = await memory.add("the zeppelin", user_id="ann")
    kept = await memory.add("the zebra", user_id="ann")
    await memory.wait_for_ingest([record.id, kept.id], "ann")
    await memory.delete(record.id)
    with pytest.raises(NotFoundError):
        await memory.get(record.id)
    with pytest.raises(NotFoundError):
        await memory.delete(record.id)
    assert await found(memory, "zeppelin") == ["the zebra"]
    assert await memory.delete_all("ann") == 1
    assert (await memory.list("ann")).items == []
    still = (await raw.search("zeppelin", actor_id=user_token("ann"))).results
    assert len(still) == 2, "Memsy itself forgets nothing"
    await memory.aclose()
    assert b"zeppelin" not in await asyncio.to_thread(path.read_bytes)


async def test_a_new_text_is_what_searches_find_and_the_id_stays(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann", tags=["drink"], scope="kitchen")
    changed = await memory.update(record.id, content="Ann drinks cocoa", tags=["sweet"])
    assert (changed.id, changed.content, changed.tags, changed.status) == (
        record.id, "Ann drinks cocoa", ["sweet"], "queued",
    )  # fmt: skip
    await memory.wait_for_ingest([record.id], "ann")
    (hit,) = await memory.search("cocoa", "ann", min_score=0.3)
    assert (hit.memory.id, hit.memory.content, hit.memory.scope) == (record.id, "Ann drinks cocoa", "kitchen")
    assert await memory.search("coffee", "ann", min_score=0.9) == [], "the old text still scores"
    before = emulator.counters.by_route["POST /v1/ingest"]
    await memory.update(record.id, tags=["other"])
    assert emulator.counters.by_route["POST /v1/ingest"] == before, "tags are no new text"


async def test_the_text_comes_back_word_for_word_whatever_the_language_model_makes_of_it(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.extract = lambda text: [f"The user said: {text.lower()}", "The user said something"]
    record = await memory.add("Ann  LIKES\ttea ", user_id="ann", tags=["Öl"], x_note={"a": [1]})
    await memory.wait_for_ingest([record.id], "ann")
    (hit,) = await memory.search("likes tea", "ann")
    assert hit.memory == (await memory.get(record.id))
    assert (hit.memory.content, hit.memory.tags, hit.memory.extensions) == (
        "Ann  LIKES\ttea ", ["Öl"], {"x-note": {"a": [1]}},
    )  # fmt: skip


async def test_a_memory_that_memsy_has_made_nothing_of_is_kept_and_found_by_its_words(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.extract = lambda text: []
    record = await memory.add("the zeppelin sails", user_id="ann")
    assert (await memory.wait_for_ingest([record.id], "ann"))[0].status == "done"
    assert emulator.memories == {}
    before = emulator.counters.by_route["POST /v1/search"]
    assert await found(memory, "zeppelin") == ["the zeppelin sails"]
    assert emulator.counters.by_route["POST /v1/search"] == before + 1, "Memsy had no more to give"
    assert await found(memory, "zebra") == []


async def test_a_fallen_away_memory_takes_no_place_among_the_results(memory: AsyncMemory) -> None:
    outcomes = await memory.add_many([{"content": f"the ship number {n}", "user_id": "ann"} for n in range(40)])
    records = [one for one in outcomes if isinstance(one, MemoryRecord)]
    await memory.wait_for_ingest([record.id for record in records], "ann")
    for record in records[:35]:
        await memory.delete(record.id)
    assert sorted(await found(memory, "ship number")) == sorted(f"the ship number {n}" for n in range(35, 40))


@pytest.mark.promise(31)
async def test_a_batch_is_one_request(memory: AsyncMemory, emulator: Emulator) -> None:
    items = [{"content": f"note {n}", "user_id": f"user {n % 3}"} for n in range(60)]
    outcomes = await memory.add_many(items)
    assert [one.content for one in outcomes if isinstance(one, MemoryRecord)] == [item["content"] for item in items]
    assert emulator.counters.by_route["POST /v1/ingest"] == 1
    long = await memory.add_many([*items[:2], {"content": "c" * 8000, "user_id": "ann"}])
    assert [type(one).__name__ for one in long] == ["MemoryRecord", "MemoryRecord", "PayloadTooLargeError"]


async def test_a_text_that_is_too_long_is_refused_before_it_is_sent(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("c" * 7999, user_id="ann")
    before = emulator.counters.requests
    with pytest.raises(PayloadTooLargeError, match="7999"):
        await memory.add("c" * 8000, user_id="ann")
    with pytest.raises(PayloadTooLargeError, match="7999"):
        await memory.update(record.id, content="c" * 8000)
    assert emulator.counters.requests == before
    assert len((await memory.get(record.id)).content) == 7999


async def test_fields_that_memsy_has_no_room_for_are_kept_all_the_same(memory: AsyncMemory, emulator: Emulator) -> None:
    tags = [f"{n:03} {'t' * 120}" for n in range(64)]
    record = await memory.add("tea", user_id="ann", tags=tags)
    assert (await memory.get(record.id)).tags == tags
    (event,) = emulator.events.values()
    assert event.metadata is None


async def test_the_file_is_the_users_own_and_outlives_the_client(
    memory: AsyncMemory, emulator: Emulator, path: Path
) -> None:
    record = await memory.add("tea", user_id="ann", scope="kitchen")
    assert stat.S_IMODE((await asyncio.to_thread(path.stat)).st_mode) == 0o600
    await memory.aclose()
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path), retries=0) as again:
        assert (await again.get(record.id)).scope == "kitchen"
        assert (await again.health()).status == "ok"


async def test_one_file_serves_the_records_and_the_audit_journal(emulator: Emulator, path: Path) -> None:
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path), audit=f"sqlite:///{path}") as memory:
        record = await memory.add("tea", user_id="ann")
        await memory.delete(record.id)
        assert [entry.action for entry in await memory.audit("ann")] == ["delete", "add"]
        declared = await memory.capabilities()
    support = declared.x_openproto.support
    assert (support["add"], support["search"], support["async_ingestion"]) == ("native", "native", "native")
    assert {support[verb] for verb in ("get", "list", "update", "delete", "audit")} == {"emulated"}


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.write_text("this is no database" * 100)], ids=["folder", "text"]
)
async def test_a_file_that_cannot_be_used_is_named_when_the_client_opens(
    emulator: Emulator, path: Path, make: Callable[[Path], object]
) -> None:
    make(path)
    with pytest.raises(ProviderError, match="path="):
        async with AsyncMemory(Memsy(**emulator.provider_options(), path=path)):
            pass


async def test_a_listing_goes_on_over_many_pages_of_the_file(path: Path) -> None:
    records = Records(path)
    await records.open()
    try:
        new = [
            Stored.new(MemoryInput(content=f"note {n}", user_id="ann"), str(n), id=f"{'a' * 22}.{n:022}.{n}")
            for n in range(2 * PAGE + 1)
        ]
        await records.keep([stored.changed(status="done") for stored in new])
        seen: list[Stored] = []
        while page := await records.page("a" * 22, None, seen[-1] if seen else None):
            seen += page
        assert [stored.record.content for stored in seen] == [stored.record.content for stored in reversed(new)]
    finally:
        await records.close()
