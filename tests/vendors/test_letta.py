"""Where the letta provider keeps memories, and what it makes of Letta's ways."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from letta_client import Letta as Sdk
from openproto_adapters.letta import Letta, archives
from openproto_conformance.emulators import Refused, Request, Status
from openproto_conformance.emulators.letta import Letta as Emulator
from openproto_conformance.emulators.letta.store import Archive, Passage

from openproto import AsyncMemory, ConflictError, NotFoundError, ProviderError, ProviderUnavailableError
from openproto.emulation import user_token

SEARCH = "POST /v1/passages/search"


@pytest.fixture
def raw(emulator: Emulator) -> Iterator[Sdk]:
    with Sdk(base_url=emulator.url, api_key=emulator.api_key) as program:
        yield program


def name(user: str) -> str:
    return f"openproto:{user_token(user)}"


def archive_of(emulator: Emulator, user: str = "ann") -> Archive:
    (found,) = [archive for archive in emulator.archives.values() if archive.name == name(user)]
    return found


def memories_of(archive: Archive) -> list[Passage]:
    return [passage for passage in archive.passages.values() if "openproto" in passage.metadata]


async def contents(memory: AsyncMemory, user: str = "ann") -> list[str]:
    return [record.content async for record in memory.iter(user)]


async def test_each_user_has_one_archive_whose_name_says_nothing(memory: AsyncMemory, emulator: Emulator) -> None:
    users = ["ann", "*", "../bob", "a b/c?d#e"]
    assert await memory.search("tea", "ann") == []
    assert SEARCH not in emulator.counters.by_route, "Letta has nothing of this user to search"
    await asyncio.gather(*(memory.add(f"note {n}", user_id="ann") for n in range(10)))
    routes = emulator.counters.by_route
    assert (routes["POST /v1/archives/"], routes["GET /v1/archives/"]) == (1, 4)  # opening, searching, before, after
    for user in users[1:]:
        await memory.add(f"of {user}", user_id=user)
        assert await contents(memory, user) == [f"of {user}"]
    assert [archive.name for archive in emulator.archives.values()] == [name(user) for user in users]
    assert [path for _, path, _ in emulator.counters.exchanges if "bob" in path or ".." in path] == []


async def test_the_oldest_archive_counts(memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, raw: Sdk) -> None:
    first = raw.archives.create(name=name("ann"))
    raw.archives.create(name=name("ann"))
    record = await memory.add("tea", user_id="ann")
    assert await contents(other) == ["tea"]
    assert len(emulator.archives[first.id].passages) == 1
    assert await memory.delete_all("ann") == 1
    assert emulator.archives == {}
    await memory.add("coffee", user_id="ann")
    # The other one still remembers the archive that was deleted.
    assert [hit.memory.content for hit in await other.search("coffee", "ann")] == ["coffee"]
    with pytest.raises(NotFoundError):
        await other.get(record.id)
    await memory.delete_all("ann")
    await other.add("milk", user_id="ann")
    assert await contents(memory) == ["milk"]


async def test_users_are_named_while_archives_go(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "PAGE", 2)
    for user in ("ann", "bob", "carl"):
        await memory.add("tea", user_id=user)
    pages, list_archives = count(), emulator.list_archives

    def deleting(request: Request) -> Any:
        shown = list_archives(request)
        if next(pages) == 0:
            del emulator.archives[archive_of(emulator, "bob").id]
        return shown

    monkeypatch.setattr(emulator, "list_archives", deleting)
    assert (await memory.users()).items == ["ann", "carl"]

    def missing(request: Request) -> Any:
        raise Refused(404, "no such route")

    monkeypatch.setattr(emulator, "list_archives", missing)
    with pytest.raises(NotFoundError):
        await memory.users()


async def test_of_two_versions_the_newer_counts_until_a_write(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("old", user_id="ann", tags=["a", "b"])
    archive = archive_of(emulator)
    (old,) = archive.passages.values()
    await memory.update(record.id, content="new")
    (new,) = archive.passages.values()
    assert (new.text, new.created_at, sorted(new.tags or [])) == ("new", old.created_at, ["a", "b"])
    assert new.metadata["openproto_version"] > old.metadata["openproto_version"]
    archive.passages[old.id] = old  # as if the update had been cut off
    before = emulator.counters.requests
    assert (await memory.get(record.id)).content == "new"
    assert emulator.counters.requests == before + 1
    assert await contents(memory) == ["new"]
    assert [hit.memory.content for hit in await memory.search("old", "ann")] == ["new"]
    await memory.update(record.id, tags=["x"])
    assert [passage.text for passage in archive.passages.values()] == ["new"]
    archive.passages[old.id] = old
    await memory.delete(record.id)
    assert archive.passages == {}


async def test_no_update_revives(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    record = await memory.add("tea", user_id="ann")
    write = emulator._write
    monkeypatch.setattr(emulator, "_write", lambda into, asked: into.passages.clear() or write(into, asked))
    with pytest.raises(NotFoundError):
        await memory.update(record.id, content="coffee")
    assert archive_of(emulator).passages == {}


@pytest.mark.parametrize(("overtaken_in", "stays"), [("replace", "coffee"), ("_write", "milk")])
async def test_of_updates_at_one_moment_one_stays(
    memory: AsyncMemory,
    other: AsyncMemory,
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    overtaken_in: str,
    stays: str,
) -> None:
    record = await memory.add("tea", user_id="ann")
    provider: Any = memory._session.provider
    go_on = getattr(provider, overtaken_in)

    async def overtaken(*args: Any) -> Any:
        await other.update(record.id, content="milk")
        return await go_on(*args)

    monkeypatch.setattr(other._session.provider, "store_name", lambda: "another process")
    monkeypatch.setattr(provider, overtaken_in, overtaken)
    await memory.update(record.id, content="coffee")
    assert [passage.text for passage in archive_of(emulator).passages.values()] == [stays]
    assert [hit.memory.content for hit in await other.search("coffee or milk", "ann")] == [stays]


@pytest.mark.parametrize("status", [404, 400])
async def test_a_failing_deletion_is_tried_twice(memory: AsyncMemory, emulator: Emulator, status: int) -> None:
    record = await memory.add("tea", user_id="ann")
    emulator.faults.next(Status(status), method="DELETE")
    await memory.delete(record.id)
    record = await memory.add("tea", user_id="ann")
    with emulator.faults.always(Status(status), method="DELETE"), pytest.raises(NotFoundError):
        await memory.delete(record.id)


async def test_a_bad_batch_is_split(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.add("first", user_id="ann")
    write = emulator._write

    def refuse_bad(archive: Archive, asked: Any) -> list[Passage]:
        if any(one["text"] == "bad" for one in asked):
            raise Refused(400, "the embedding model does not take this")
        return write(archive, asked)

    monkeypatch.setattr(emulator, "_write", refuse_bad)
    outcomes = await memory.add_many([{"content": text, "user_id": "ann"} for text in ("good", "bad", "also good")])
    assert [getattr(outcome, "code", "stored") for outcome in outcomes] == ["stored", "invalid_request", "stored"]
    assert await contents(memory) == ["also good", "good", "first"]


async def test_archives_have_the_chosen_embedding_model(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    options = {**emulator.provider_options(), "embedding": "openai/text-embedding-3-large"}
    async with AsyncMemory(Letta(**options)) as memory:
        await memory.add("tea", user_id="ann")
    assert archive_of(emulator).handle == "openai/text-embedding-3-large"
    assert "set embedding=" not in caplog.text
    emulator.default_embedding = None
    async with AsyncMemory(Letta(**emulator.provider_options())) as memory:
        outcomes = await memory.add_many([{"content": f"note {n}", "user_id": "bob"} for n in range(3)])
        assert [getattr(outcome, "code", "stored") for outcome in outcomes] == ["stored"] * 3
        assert [hit.memory.content for hit in await memory.search("note 1", "bob")] == ["note 1"]
    assert "set embedding=" in caplog.text


@pytest.mark.parametrize("half", [True, False], ids=["an add that is half done", "a key that was looked up too early"])
async def test_another_process_with_the_key_gets_the_memory(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, half: bool
) -> None:
    async def too_early(*_: Any) -> None:
        """Look the key up before the other process has written it."""

    record = await memory.add("tea", user_id="ann", idempotency_key="key-1")
    archive = archive_of(emulator)
    if half:
        (passage,) = memories_of(archive)
        del archive.passages[passage.id]
    else:
        monkeypatch.setattr(other._session.provider, "find_key", too_early)
    with pytest.raises(ConflictError):
        await other.add("coffee", user_id="ann", idempotency_key="key-1")
    again = await other.add("tea", user_id="ann", idempotency_key="key-1")
    assert again.model_copy(update={"version": record.version}) == record
    assert len(memories_of(archive)) == 1
    await memory.delete(record.id)
    with pytest.raises(ConflictError, match="deleted since"):
        await other.add("tea", user_id="ann", idempotency_key="key-1")


async def test_a_foreign_passage(memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, raw: Sdk) -> None:
    await memory.add("tea", user_id="ann")
    archive = archive_of(emulator)
    raw.archives.passages.create(archive.id, text="written elsewhere", metadata={"a": [1]}, tags=["t"])
    foreign = (await memory.list("ann")).items[0]
    assert (foreign.content, foreign.tags, foreign.extensions) == ("written elsewhere", ["t"], {"x-letta": {"a": [1]}})
    assert await memory.get(foreign.id) == foreign
    raw.archives.update(archive.id, description="bob")
    for call in (other.get(foreign.id), other.get(foreign.id, user_id="bob")):
        with pytest.raises(NotFoundError):
            await call
    updated = await memory.update(foreign.id, user_id="ann", content="changed here")
    assert (updated.id, updated.content, updated.extensions) == (foreign.id, "changed here", foreign.extensions)
    await memory.delete(foreign.id)
    assert await contents(memory) == ["tea"]


async def test_a_damaged_or_foreign_passage_is_an_error(memory: AsyncMemory, emulator: Emulator, raw: Sdk) -> None:
    await memory.add("tea", user_id="ann")
    await memory.add("secret", user_id="bob")
    bobs = archive_of(emulator, "bob")
    answer = raw.passages.with_raw_response.search(archive_id=bobs.id).json()
    emulator.faults.next(Status(200, body=answer))
    with pytest.raises(ProviderError, match="another archive"):
        await memory.search("secret", "ann")
    archive_of(emulator).passages |= bobs.passages
    for attempt in (memory.list("ann"), memory.search("secret", "ann"), memory.delete_all("ann")):
        with pytest.raises(ProviderError, match="does not belong there"):
            await attempt
    assert await contents(memory, "bob") == ["secret"]
    (passage,) = bobs.passages.values()
    whole = passage.metadata
    for damage in ({"openproto": "{"}, {"openproto": 5}, {"openproto_version": "new"}):
        passage.metadata = {**whole, **damage}
        for attempt in (memory.list("bob"), memory.search("secret", "bob")):
            with pytest.raises(ProviderError):
                await attempt


async def test_a_listing_is_whole_however_memories_are_spread(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add("newest", user_id="ann")
    now = datetime.now(UTC).replace(microsecond=0)
    bursts = [now - timedelta(days=3000), now - timedelta(days=400), now - timedelta(hours=1)]
    moments = [burst + timedelta(microseconds=n) for burst in bursts for n in range(230)]
    moments += [now - timedelta(days=n) for n in range(100, 140)]
    moments = sorted(moments + [now - timedelta(days=50)] * 99)
    added = [Passage(f"note {n}", moment, moment) for n, moment in enumerate(moments)]
    archive_of(emulator).passages |= {passage.id: passage for passage in added}
    before = emulator.counters.by_route[SEARCH]
    records = [record async for record in memory.iter("ann")]
    assert [record.created_at for record in records[1:]] == moments[::-1]
    assert len({record.id for record in records}) == len(moments) + 1
    assert emulator.counters.by_route[SEARCH] - before < 20 * len(moments) / 50  # twenty requests for a page of fifty
    page = await memory.list("ann", until=moments[300], limit=10)
    assert [record.created_at for record in page.items] == moments[300:290:-1]


async def test_scores_are_lettas_or_of_the_order(memory: AsyncMemory, emulator: Emulator, raw: Sdk) -> None:
    for text in ("a red car", "green tea in the morning", "the river at night"):
        await memory.add(text, user_id="ann")
    hits = await memory.search("green tea", "ann")
    scores = [hit.score for hit in hits]
    assert hits[0].memory.content == "green tea in the morning"
    assert scores == sorted(set(scores), reverse=True)
    assert 0.0 < scores[-1] < scores[0] <= 0.5, "an order vouches for nothing"
    scored: Any = raw.passages.with_raw_response.search(archive_id=archive_of(emulator).id, query="green tea").json()
    for place, hit in enumerate(scored):
        hit["score"] = 0.9 - place / 4
    emulator.faults.next(Status(200, body=scored))
    assert [hit.score for hit in await memory.search("green tea", "ann")] == pytest.approx([0.9, 0.65, 0.4])


async def test_a_named_environment_goes_first(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_BASE_URL", emulator.url)
    monkeypatch.setenv("LETTA_API_KEY", emulator.api_key)
    with pytest.raises(ProviderUnavailableError):  # nothing is on the local port
        async with AsyncMemory(Letta(environment="local"), retries=0):
            pass
