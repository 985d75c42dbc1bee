"""How memories are kept at a vendor that words them anew, drops repeats, and gives a changed text another number."""

from __future__ import annotations

import threading
from itertools import count
from typing import Any

import pytest
from memorysync import MemorySyncClient
from openproto_adapters.memorysync import MemorySync, api, connection
from openproto_adapters.memorysync.api import Api
from openproto_adapters.memorysync.connection import Connection, Options
from openproto_adapters.memorysync.ids import end_user
from openproto_conformance.emulators import Answer, CloseConnection, Drip, HtmlWith200, Request, Status
from openproto_conformance.emulators.memorysync import MemorySync as Emulator
from waiting import until

from openproto import AsyncMemory, MemoryRecord, errors
from openproto.emulation import user_token

GET, QUERY = "GET /memory/{id}", "POST /memory/query"


def sdk(emulator: Emulator, user_id: str) -> MemorySyncClient:
    """Return MemorySync's SDK as another program would use it, for a user of ours."""
    return MemorySyncClient(emulator.api_key, emulator.url, end_user_id=end_user(user_token(user_id)))


async def contents(memory: AsyncMemory) -> list[str]:
    return sorted([record.content async for record in memory.iter("ann")])


def left(emulator: Emulator) -> list[str]:
    return [row.text for row in emulator.memories.values() if not row.deleted]


async def test_a_text_that_becomes_several_facts_is_one_memory(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.facts = lambda text: [f"The user said: {part}" for part in text.split(". ")]
    record = await memory.add(" Ann likes tea. Ann has a cat. Ann lives in Rome\n", user_id="ann", tags=["a"])
    assert (record.content, len(emulator.memories)) == (" Ann likes tea. Ann has a cat. Ann lives in Rome\n", 3)
    assert await memory.get(record.id) == record
    assert [hit.memory for hit in await memory.search("does Ann have a cat", "ann")] == [record]
    assert [one async for one in memory.iter("ann")] == [record]
    changed = await memory.update(record.id, tags=["b"])
    assert [hit.memory for hit in await memory.search("where does Ann live", "ann", tag="b")] == [changed]
    assert await memory.search("where does Ann live", "ann", tag="a") == []
    assert (await memory.update(record.id, content="Ann moved. Ann is in Oslo")).id == record.id
    assert await contents(memory) == ["Ann moved. Ann is in Oslo"]
    await memory.delete(record.id)
    assert left(emulator) == []


async def test_half_an_add_is_one(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.facts = lambda text: text.split(". ")
    emulator.faults.next(CloseConnection(applied=False), path="/memory/batch-update")
    with pytest.raises(errors.ProviderUnavailableError):
        await memory.add("Ann likes tea. Ann has a cat", user_id="ann", tags=["a"], idempotency_key="k")
    (listed,) = [record async for record in other.iter("ann")]
    with monkeypatch.context() as patched:
        # No search finds what the key was used for.
        patched.setattr(emulator, "metered", lambda silent: Answer(200, silent) if "memories" in silent else None)
        again = await other.add("Ann likes tea. Ann has a cat", user_id="ann", tags=["a"], idempotency_key="k")
    assert again == listed
    changed = await other.update(again.id, tags=["b"])
    assert await other.search("who has a cat", "ann", tag="a") == []
    assert [hit.memory for hit in await other.search("who has a cat", "ann")] == [changed]


async def test_a_text_kept_or_refused(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    emulator.facts = lambda text: []
    with pytest.raises(errors.InvalidRequestError, match="no_high_value_content"):
        await memory.add("hm", user_id="ann")
    emulator.facts = lambda text: ["Ann likes tea"]
    await memory.add("Ann likes tea", user_id="ann")
    with pytest.raises(errors.ConflictError, match="duplicate") as caught:
        await memory.add("Tea is what Ann likes", user_id="ann")
    assert "Tea" not in str(caught.value)
    emulator.facts = lambda text: [text]
    take, rejected = emulator.take, {"status": "rejected", "reason": "The text 'milk' is bad", "memory_ids": []}
    monkeypatch.setattr(emulator, "take", lambda item, user: rejected if "milk" in item["text"] else take(item, user))
    first, second = await memory.add_many([{"content": one, "user_id": "ann"} for one in ("milk", "coffee")])
    assert isinstance(first, errors.InvalidRequestError)
    assert "milk" not in str(first)
    assert isinstance(second, MemoryRecord)


# Content that changes


async def test_a_changed_content_keeps_the_id(memory: AsyncMemory, other: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann", tags=["a"])
    changed = await memory.update(record.id, content="Ann drinks tea now")
    free = {"content", "updated_at", "version"}
    assert changed.model_dump(exclude=free) == record.model_dump(exclude=free)
    (row,) = (row for row in emulator.memories.values() if not row.deleted)
    assert "coffee" not in f"{row.text} {row.metadata}"
    for client, requests in (
        (memory, {GET: 1}),  # which made the change
        (other, {GET: 1, QUERY: 1}),  # which has to look it up, once
        (other, {GET: 1}),
    ):
        emulator.counters.by_route.clear()
        assert await client.get(record.id) == changed
        assert dict(emulator.counters.by_route) == requests
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [changed]
    emulator.embedding_down = True
    assert (await memory.update(record.id, content="Ann drinks milk")).id == record.id
    assert (await other.get(record.id)).content == "Ann drinks milk", "although no search finds it"
    emulator.quota = "silent"
    assert (await other.get(record.id)).content == "Ann drinks milk"
    await memory.delete(record.id)
    with pytest.raises(errors.NotFoundError):
        await other.get(record.id)


@pytest.mark.parametrize("indexed", [True, False])
async def test_half_a_change_shows(memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, indexed: bool) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    emulator.embedding_down = not indexed
    emulator.faults.next(CloseConnection(applied=False), method="DELETE", path="/memory/forget")
    with pytest.raises(errors.ProviderUnavailableError):
        await memory.update(record.id, content="Ann drinks tea now")
    assert len(left(emulator)) == 2
    for client in (memory, other):
        got = await client.get(record.id)
        assert got.content == "Ann drinks tea now"
        assert [one async for one in client.iter("ann")] == [got]
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [got]
    await other.update(record.id, tags=["late"])
    assert [hit.memory.tags for hit in await memory.search("who drinks coffee", "ann")] == [["late"]]
    await other.delete(record.id)
    assert left(emulator) == []


@pytest.mark.parametrize("refusal", ["silent", "strict", "worthless", "cut off"])
async def test_no_change_if_refused(memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, refusal: Any) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    if refusal == "worthless":
        emulator.facts = lambda text: []
    elif refusal == "cut off":
        emulator.faults.next(CloseConnection(applied=False), method="POST", path="/memory/bulk-add")
    else:
        emulator.quota = refusal
    with pytest.raises((errors.RateLimitedError, errors.InvalidRequestError, errors.ProviderUnavailableError)):
        await memory.update(record.id, content="Ann drinks tea now")
    emulator.counters.by_route.clear()
    assert await memory.get(record.id) == record
    assert refusal == "cut off" or dict(emulator.counters.by_route) == {GET: 1}
    emulator.quota = ""
    for client in (memory, other):
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [record]


async def test_over_the_plan_is_an_error_in_spite_of_the_answer(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("Ann drinks tea", user_id="ann")
    emulator.quota = "silent"
    assert [hit.memory for hit in await memory.search("tea", "ann")] == [record], "the listing shows it"
    with pytest.raises(errors.RateLimitedError, match="over its plan"):
        await memory.add("tea", user_id="ann")
    (outcome,) = await memory.add_many([{"content": "tea", "user_id": "ann"}])
    assert isinstance(outcome, errors.RateLimitedError)
    with pytest.raises(errors.RateLimitedError, match="over its plan"):
        await memory.search("tea", "ann")
    emulator.quota = ""
    assert await memory.search("tea", "bob") == [], "the plan has been raised"
    await memory.add("tea", user_id="ann")
    assert len(await memory.search("tea", "ann")) == 2


# Listing, and whose rows are whose


async def test_a_listing_is_whole(memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAGE", 20)
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(60)])
    page, pages = Api._page, count(1)

    async def moving(self: Api, *args: Any) -> Any:
        match next(pages):
            case 2:
                with sdk(emulator, "ann") as program:
                    program.forget([60 - n for n in range(10)])  # of the first page, which was read
            case 5:
                for n in range(25):
                    emulator.take({"text": f"what another program adds {n}"}, end_user(user_token("ann")))
        return await page(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Api, "_page", moving)
        found = {record.content for record in (await memory.list("ann", limit=100)).items}
    remaining = {text.partition("\n")[0] for text in left(emulator) if text.startswith("note")}
    assert len(remaining) == 50
    assert remaining <= found
    with monkeypatch.context() as patch:
        patch.setattr(Api, "_page", lambda self, tenant, token, offset: page(self, tenant, token, 0))
        with pytest.raises(errors.ProviderError, match="unexpected response"):  # not for ever, nor a part for the whole
            await memory.list("ann", limit=100)
    emulator.lists_metadata = emulator.lists_projects = False
    assert len([record async for record in memory.iter("ann")]) == 50
    assert emulator.counters.by_route["GET /memory/export"] == 0
    async with AsyncMemory(MemorySync(**emulator.provider_options())) as restricted:
        assert len([record async for record in restricted.iter("ann", page_size=100)]) == 50
    assert emulator.counters.by_route["GET /memory/export"] == 1


async def test_other_rows_are_not_memories(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("Ann likes tea", user_id="ann")
    with sdk(emulator, "ann") as program:
        program.add("another fact about what Ann likes", metadata={"by": "somebody"}, tags=["x"])
    assert [one async for one in memory.iter("ann")] == [record]
    assert [hit.memory for hit in await memory.search("what does Ann like", "ann")] == [record]
    with pytest.raises(errors.NotFoundError):
        await memory.get(record.id.replace(".1.", ".2."))
    tag = (emulator.memories[1].tags or [])[0]
    decoy = await memory.add("decoy", user_id="ann", tags=[tag, "openproto:scope:a"])
    assert [hit.memory for hit in await memory.search("decoy", "ann", tag=tag)] == [decoy]
    assert await memory.search("decoy", "ann", scope="a") == []
    assert await memory.delete_all("ann") == 2
    assert left(emulator) == []


async def test_a_project_is_named_with_every_memory(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Request] = []
    respond = emulator.respond
    monkeypatch.setattr(emulator, "respond", lambda request: seen.append(request) or respond(request))
    async with AsyncMemory(MemorySync(**emulator.provider_options(), project_id="proj_1")) as memory:
        await memory.add("tea", user_id="ann")
        await memory.list("ann")
    named = {(request.path == "/org/projects", request.headers.get("x-project-id")) for request in seen}
    assert named == {(True, None), (False, "proj_1")}


# Connections


async def test_clients_for_many_users_share_connections(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CLIENTS", 3)
    shared = Connection(Options(emulator.api_key, emulator.url, None, 5.0, 4))
    for n in range(10):
        await shared.call(f"user-{n}", lambda client: client.query("tea"))
    assert [end_user for end_user, _ in shared._clients.items()] == ["user-7", "user-8", "user-9"]
    assert emulator.counters.opened == 1
    await shared.close()


async def test_no_thread_is_left_once_a_client_is_open(emulator: Emulator) -> None:
    before = set(threading.enumerate())
    async with AsyncMemory(MemorySync(**emulator.provider_options())) as memory:
        await memory.add("tea", user_id="ann")
        await until(lambda: not set(threading.enumerate()) - before)


async def test_the_timeout_bounds_an_answer_that_comes_byte_by_byte(emulator: Emulator) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), timeout=0.3), retries=0) as memory:
        emulator.faults.next(Drip(0.05), path="/memory/query")
        with pytest.raises(errors.ProviderTimeoutError):
            await memory.search("tea", "ann")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Status(200, {"projects": []}), errors.ProviderError),
        (Status(200, [{"id": "proj_1"}]), errors.ProviderError),
        (HtmlWith200(), errors.ProviderError),
        (Status(503), errors.ProviderUnavailableError),
        (Status(403), errors.UnauthorizedError),  # which alone says nothing: the key may be good for memories only
    ],
)
async def test_opening_checks_tenant_and_key(emulator: Emulator, answer: Any, expected: Any) -> None:
    key = "wrong" if expected is errors.UnauthorizedError else emulator.api_key
    with emulator.faults.always(answer, path="/org/projects"), pytest.raises(expected) as caught:
        await MemorySync(base_url=emulator.url, api_key=key).open()
    assert type(caught.value) is expected
