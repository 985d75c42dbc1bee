"""Where the letta provider keeps memories, and what it makes of Letta's ways."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from letta_client import Letta as Sdk
from openproto_adapters.letta import Letta
from openproto_conformance.emulators.letta import Letta as Emulator
from openproto_conformance.emulators.letta.store import Archive, Passage

from openproto import AsyncMemory, ConflictError, NotFoundError, ProviderError
from openproto.emulation import user_token

SEARCH = "POST /v1/passages/search"


def name(user: str) -> str:
    return f"openproto:{user_token(user)}"


def archive_of(emulator: Emulator, user: str) -> Archive:
    (found,) = [archive for archive in emulator.archives.values() if archive.name == name(user)]
    return found


def memories_of(archive: Archive) -> list[Passage]:
    return [passage for passage in archive.passages.values() if "openproto" in passage.metadata]


def version_of(passage: Passage) -> Any:
    return passage.metadata["openproto_version"]


async def contents(memory: AsyncMemory, user: str = "ann") -> list[str]:
    return [record.content async for record in memory.iter(user)]


async def test_each_user_has_an_archive_with_a_name_that_tells_nothing(memory: AsyncMemory, emulator: Emulator) -> None:
    users = ["ann", "*", "../bob", "a b/c?d#e", "ann "]
    for user in users:
        await memory.add(f"of {user}", user_id=user)
    assert [archive.name for archive in emulator.archives.values()] == [name(user) for user in users]
    for user in users:
        assert await contents(memory, user) == [f"of {user}"]
    assert [path for _, path, _ in emulator.counters.exchanges if "bob" in path or ".." in path] == []


async def test_the_archive_is_created_once_and_then_remembered(memory: AsyncMemory, emulator: Emulator) -> None:
    await asyncio.gather(*(memory.add(f"note {n}", user_id="ann") for n in range(10)))
    routes = emulator.counters.by_route
    assert (routes["POST /v1/archives/"], routes["GET /v1/archives/"]) == (1, 3)  # opening, before, and after
    assert len(emulator.archives) == 1


async def test_of_two_archives_of_one_name_everybody_takes_the_oldest(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, raw: Sdk
) -> None:
    first = raw.archives.create(name=name("ann"))
    raw.archives.create(name=name("ann"))
    for client in (memory, other):
        await client.add("tea", user_id="ann")
    assert len(emulator.archives[first.id].passages) == 2
    assert len(emulator.archives) == 2
    await memory.delete_all("ann")
    assert emulator.archives == {}


async def test_an_archive_that_is_gone_is_made_anew(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ann")
    assert await contents(other) == ["tea"]
    assert await memory.delete_all("ann") == 1
    assert emulator.archives == {}
    await memory.add("coffee", user_id="ann")
    # The other one still remembers the archive that was deleted.
    assert await contents(other) == ["coffee"]
    assert [hit.memory.content for hit in await other.search("coffee", "ann")] == ["coffee"]
    with pytest.raises(NotFoundError):
        await other.get(record.id)
    await memory.delete_all("ann")
    await other.add("milk", user_id="ann")
    assert await contents(memory) == ["milk"]


async def test_an_id_finds_its_memory_in_one_request(memory: AsyncMemory, emulator: Emulator) -> None:
    records = [await memory.add(f"note {n}", user_id="ann") for n in range(3)]
    before = emulator.counters.requests
    assert await memory.get(records[1].id) == records[1]
    assert emulator.counters.requests == before + 1
    assert len({record.created_at for record in records}) == 3


async def test_an_id_that_was_never_made_here_asks_nobody(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("tea", user_id="ann")
    before = emulator.counters.requests
    for id in (
        "x",
        "../" + record.id[3:],
        record.id + "A" * 12,
        record.id[:22] + "_" * 20,
        record.id.replace("A", " "),
    ):
        with pytest.raises(NotFoundError):
            await memory.get(id)
    with pytest.raises(NotFoundError):
        await memory.get(record.id, user_id="bob")
    assert emulator.counters.requests <= before + 1  # a well-formed id has to be looked for


async def test_an_update_leaves_one_passage_of_a_higher_version(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("tea", user_id="ann", tags=["a", "b"])
    (before,) = memories_of(archive_of(emulator, "ann"))
    updated = await memory.update(record.id, content="coffee")
    (after,) = memories_of(archive_of(emulator, "ann"))
    assert (updated.id, updated.created_at) == (record.id, record.created_at)
    assert (after.text, after.created_at, sorted(after.tags or [])) == ("coffee", before.created_at, ["a", "b"])
    assert version_of(after) > version_of(before)


@pytest.fixture
async def torn(memory: AsyncMemory, emulator: Emulator) -> tuple[str, Archive]:
    """The id of a memory of which an update was cut off, so that two versions are there; and its archive."""
    record = await memory.add("old", user_id="ann")
    archive = archive_of(emulator, "ann")
    (old,) = archive.passages.values()
    await memory.update(record.id, content="new")
    archive.passages[old.id] = old
    return record.id, archive


async def test_a_reader_that_meets_two_versions_takes_the_newer(memory: AsyncMemory, torn: tuple[str, Archive]) -> None:
    id, _ = torn
    assert (await memory.get(id)).content == "new"
    assert await contents(memory) == ["new"]
    assert [hit.memory.content for hit in await memory.search("old", "ann")] == ["new"]


async def test_the_next_update_and_a_delete_remove_every_version(
    memory: AsyncMemory, torn: tuple[str, Archive]
) -> None:
    id, archive = torn
    await memory.update(id, tags=["x"])
    assert [passage.text for passage in archive.passages.values()] == ["new"]
    stale = next(iter(archive.passages.values()))
    await memory.update(id, content="newest")
    archive.passages[stale.id] = stale
    await memory.delete(id)
    assert archive.passages == {}


async def test_an_update_of_what_another_process_deletes_does_not_bring_it_back(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await memory.add("tea", user_id="ann")
    archive = archive_of(emulator, "ann")
    write = emulator._write

    def delete_first(into: Archive, asked: Any) -> list[Passage]:
        into.passages.clear()
        return write(into, asked)

    monkeypatch.setattr(emulator, "_write", delete_first)
    with pytest.raises(NotFoundError):
        await memory.update(record.id, content="coffee")
    assert archive.passages == {}


async def test_a_batch_is_written_ten_at_a_time_and_keeps_its_order(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add("first", user_id="ann")
    items = [{"content": f"note {n}", "user_id": "ann"} for n in range(25)]
    records = await memory.add_many(items)
    batches = emulator.counters.by_route["POST /v1/archives/{archive_id}/passages/batch"]
    assert batches == 3
    assert [getattr(record, "content", record) for record in records] == [item["content"] for item in items]
    assert (await contents(memory))[::-1] == ["first", *(item["content"] for item in items)]


async def test_a_batch_that_is_refused_fails_only_where_it_must(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.add("first", user_id="ann")
    write = emulator._write

    def refuse_bad(archive: Archive, asked: Any) -> list[Passage]:
        from openproto_conformance.emulators import Refused

        if any(one["text"] == "bad" for one in asked):
            raise Refused(400, "the embedding model does not take this")
        return write(archive, asked)

    monkeypatch.setattr(emulator, "_write", refuse_bad)
    outcomes = await memory.add_many([{"content": text, "user_id": "ann"} for text in ("good", "bad", "also good")])
    assert [getattr(outcome, "code", "stored") for outcome in outcomes] == ["stored", "invalid_request", "stored"]
    assert await contents(memory) == ["also good", "good", "first"]


async def test_an_archive_without_an_embedding_model_is_warned_of_and_takes_batches_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Emulator(default_embedding=None) as emulator:
        async with AsyncMemory(Letta(**emulator.provider_options())) as memory:
            outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(3)])
            assert [getattr(outcome, "code", "stored") for outcome in outcomes] == ["stored"] * 3
            assert [hit.memory.content for hit in await memory.search("note 1", "ann")] == ["note 1"]
    assert "set embedding=" in caplog.text


async def test_the_embedding_model_is_the_one_that_was_chosen(emulator: Emulator) -> None:
    options = {**emulator.provider_options(), "embedding": "openai/text-embedding-3-large"}
    async with AsyncMemory(Letta(**options)) as memory:
        await memory.add("tea", user_id="ann")
    assert archive_of(emulator, "ann").handle == "openai/text-embedding-3-large"


async def test_a_callers_key_is_kept_where_no_search_and_no_listing_comes(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    await memory.add("tea", user_id="ann", idempotency_key="key-1")
    archive = archive_of(emulator, "ann")
    (key,) = [passage for passage in archive.passages.values() if "openproto" not in passage.metadata]
    assert key.created_at < datetime(1970, 1, 1, tzinfo=UTC)
    assert "key-1" not in json.dumps([key.text, key.metadata])
    assert await contents(memory) == ["tea"]
    assert [hit.memory.content for hit in await memory.search("idempotency key of openproto", "ann")] == ["tea"]


async def test_the_key_of_a_deleted_memory_brings_nothing_back(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ann", idempotency_key="key-1")
    await memory.update(record.id, content="coffee")
    assert (await other.add("tea", user_id="ann", idempotency_key="key-1")).content == "coffee"
    await memory.delete(record.id)
    for client in (memory, other):
        with pytest.raises(ConflictError, match="deleted since"):
            await client.add("tea", user_id="ann", idempotency_key="key-1")
    assert await contents(memory) == []
    await memory.delete_all("ann")
    assert (await memory.add("tea", user_id="ann", idempotency_key="key-1")).id != record.id


async def test_an_add_that_was_cut_off_after_its_key_is_completed_under_the_same_id(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ann", idempotency_key="key-1")
    archive = archive_of(emulator, "ann")
    (passage,) = memories_of(archive)
    del archive.passages[passage.id]
    with pytest.raises(ConflictError):
        await other.add("coffee", user_id="ann", idempotency_key="key-1")
    again = await other.add("tea", user_id="ann", idempotency_key="key-1")
    assert again.model_copy(update={"version": record.version}) == record


async def test_of_two_processes_that_claim_one_key_the_earlier_wins(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ann", idempotency_key="key-1")
    provider = other._session.provider
    assert isinstance(provider, Letta)

    async def too_early(*_: Any) -> None:
        """Look the key up before the other process has written it."""

    provider.find_key = too_early  # type: ignore[method-assign]
    again = await other.add("tea", user_id="ann", idempotency_key="key-1")
    assert again.model_copy(update={"version": record.version}) == record
    with pytest.raises(ConflictError):
        await other.add("coffee", user_id="ann", idempotency_key="key-1")
    assert len(memories_of(archive_of(emulator, "ann"))) == 1


async def test_what_another_program_wrote_is_read_changed_and_deleted_like_the_rest(
    memory: AsyncMemory, emulator: Emulator, raw: Sdk
) -> None:
    await memory.add("tea", user_id="ann")
    archive = archive_of(emulator, "ann")
    raw.archives.passages.create(archive.id, text="written elsewhere", metadata={"a": [1]}, tags=["t"])
    foreign = (await memory.list("ann")).items[0]
    assert (foreign.content, foreign.tags, foreign.extensions) == ("written elsewhere", ["t"], {"x-letta": {"a": [1]}})
    assert await memory.get(foreign.id) == foreign
    raw.archives.update(archive.id, description="somebody else")
    assert (await memory.get(foreign.id, user_id="ann")) == foreign
    updated = await memory.update(foreign.id, user_id="ann", content="changed here")
    assert (updated.id, updated.content, updated.extensions) == (foreign.id, "changed here", foreign.extensions)
    await memory.delete(foreign.id)
    assert await contents(memory) == ["tea"]


async def test_who_is_not_the_archives_owner_cannot_be_put_into_its_description(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, raw: Sdk
) -> None:
    await memory.add("tea", user_id="ann")
    archive = archive_of(emulator, "ann")
    raw.archives.passages.create(archive.id, text="written elsewhere")
    raw.archives.update(archive.id, description="bob")
    (foreign, _) = (await memory.list("ann")).items
    with pytest.raises(NotFoundError):
        await other.get(foreign.id)
    with pytest.raises(NotFoundError):
        await other.get(foreign.id, user_id="bob")


@pytest.mark.parametrize("damage", [{"openproto": "{"}, {"openproto": 5}, {"openproto_version": "new"}])
async def test_metadata_that_was_damaged_is_an_error_and_no_memory(
    memory: AsyncMemory, emulator: Emulator, damage: dict[str, Any]
) -> None:
    record = await memory.add("tea", user_id="ann")
    (passage,) = archive_of(emulator, "ann").passages.values()
    passage.metadata |= damage
    for attempt in (memory.get(record.id), memory.list("ann"), memory.search("tea", "ann")):
        with pytest.raises(ProviderError):
            await attempt


async def test_a_passage_of_another_user_in_the_archive_goes_no_further(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    await memory.add("tea", user_id="ann")
    await memory.add("secret", user_id="bob")
    archive_of(emulator, "ann").passages |= archive_of(emulator, "bob").passages
    for attempt in (memory.list("ann"), memory.search("secret", "ann"), memory.delete_all("ann")):
        with pytest.raises(ProviderError, match="does not belong there"):
            await attempt
    assert await contents(memory, "bob") == ["secret"]


@pytest.fixture
def spread() -> Iterator[list[datetime]]:
    """Moments of a kind that makes a listing by windows hard: bursts, gaps of years, and many at once."""
    now = datetime.now(UTC).replace(microsecond=0)
    bursts = [now - timedelta(days=3000), now - timedelta(days=400), now - timedelta(hours=1)]
    moments = [burst + timedelta(microseconds=n) for burst in bursts for n in range(230)]
    moments += [now - timedelta(days=n) for n in range(100, 140)]
    moments += [now - timedelta(days=50)] * 99
    return iter([sorted(moments)])


async def test_a_listing_is_newest_first_whole_and_without_repeats_however_the_memories_are_spread(
    memory: AsyncMemory, emulator: Emulator, spread: Iterator[list[datetime]]
) -> None:
    moments = next(spread)
    await memory.add("newest", user_id="ann")
    archive = archive_of(emulator, "ann")
    for n, moment in enumerate(moments):
        passage = Passage(f"note {n}", moment, moment)
        archive.passages[passage.id] = passage
    before = emulator.counters.by_route[SEARCH]
    records = [record async for record in memory.iter("ann")]
    assert [record.created_at for record in records[1:]] == moments[::-1]
    assert len({record.id for record in records}) == len(moments) + 1
    assert emulator.counters.by_route[SEARCH] - before < 20 * len(moments) / 50  # twenty requests for a page of fifty
    page = await memory.list("ann", until=moments[300], limit=10)
    assert [record.created_at for record in page.items] == moments[300:290:-1]


async def test_the_newest_page_of_thousands_is_found_without_reading_the_others(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    await memory.add("newest", user_id="ann")
    archive = archive_of(emulator, "ann")
    long_ago = datetime.now(UTC) - timedelta(days=900)
    for n in range(2000):
        passage = Passage(f"note {n}", long_ago + timedelta(milliseconds=n), long_ago)
        archive.passages[passage.id] = passage
    before = emulator.counters.by_route[SEARCH]
    page = await memory.list("ann", limit=20)
    assert [record.content for record in page.items[:2]] == ["newest", "note 1999"]
    assert emulator.counters.by_route[SEARCH] - before < 50  # most of them for one passage, or none


async def test_scores_come_from_the_order_where_letta_has_none_and_vouch_for_nothing(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    for text in ("a red car", "green tea in the morning", "the river at night"):
        await memory.add(text, user_id="ann")
    hits = await memory.search("green tea", "ann")
    assert hits[0].memory.content == "green tea in the morning"
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    assert 0.0 < scores[-1] < scores[0] <= 0.5


async def test_scores_are_lettas_where_it_has_them(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.add("tea", user_id="ann")
    await memory.add("coffee", user_id="ann")
    search = emulator.search

    def scored(request: Any) -> Any:
        answer = search(request)
        for place, hit in enumerate(answer.body):
            hit["score"] = 0.9 - place / 2
        return answer

    monkeypatch.setattr(emulator, "search", scored)
    hits = await memory.search("coffee", "ann")
    assert [(hit.memory.content, hit.score) for hit in hits] == [("coffee", 0.9), ("tea", 0.4)]


async def test_a_tag_that_no_near_memory_has_is_found_all_the_same(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add("something else entirely", user_id="ann", tags=["rare"])
    await memory.add_many([{"content": f"green tea number {n}", "user_id": "ann"} for n in range(150)])
    hits = await memory.search("green tea number something", "ann", tag="rare", limit=5)
    assert [hit.memory.tags for hit in hits] == [["rare"]]


async def test_an_id_that_looks_right_and_is_of_no_moment_is_not_found(memory: AsyncMemory) -> None:
    with pytest.raises(NotFoundError):
        await memory.get("A" * 22 + "_" * 20)
