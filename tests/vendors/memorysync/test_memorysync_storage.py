"""How memories are kept at a vendor that words them anew, drops repeats, and gives a changed text another number."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import openproto_adapters.memorysync
import pytest
from memorysync import AddSkippedResponse, MemorySyncClient
from openproto_adapters.memorysync import MemorySync, api
from openproto_adapters.memorysync.api import Api
from openproto_conformance.emulators import Answer, CloseConnection, Request, Status
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import AsyncMemory, ConflictError, InvalidRequestError, MemoryRecord, NotFoundError, RateLimitedError
from openproto.errors import ProviderError, ProviderUnavailableError

SOURCES = sorted(Path(openproto_adapters.memorysync.__path__[0]).glob("*.py"))

Sdk: TypeAlias = Callable[[str], MemorySyncClient]

ADD, GET, QUERY, LIST = (
    "POST /memory/bulk-add",
    "GET /memory/{id}",
    "POST /memory/query",
    "GET /v1/memory/{tenant}/{user}/list",
)


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "PAGE", 20)


async def contents(memory: AsyncMemory, user_id: str = "ann") -> list[str]:
    return sorted([record.content async for record in memory.iter(user_id)])


async def test_content_comes_back_as_it_was_given_though_memorysync_words_it_anew(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.facts = lambda text: [f"The user said something about {text.split()[0]} once."]
    record = await memory.add("  tea,\n no sugar ", user_id="ann")
    assert emulator.memories[1].text == "The user said something about tea, once."
    assert record.content == "  tea,\n no sugar "
    assert await memory.get(record.id) == record
    assert await contents(memory) == ["  tea,\n no sugar "]
    assert [hit.memory for hit in await memory.search("tea", "ann")] == [record]


async def test_a_text_that_becomes_several_facts_is_one_memory(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.facts = lambda text: text.split(". ")
    record = await memory.add("Ann likes tea. Ann has a cat. Ann lives in Rome", user_id="ann", tags=["a"])
    assert len(emulator.memories) == 3
    assert [hit.memory for hit in await memory.search("does Ann have a cat", "ann")] == [record]
    assert [one async for one in memory.iter("ann")] == [record]
    changed = await memory.update(record.id, tags=["b"])
    assert [hit.memory for hit in await memory.search("where does Ann live", "ann", tag="b")] == [changed]
    assert await memory.search("where does Ann live", "ann", tag="a") == []
    assert (await memory.update(record.id, content="Ann moved. Ann is in Oslo")).id == record.id
    assert await contents(memory) == ["Ann moved. Ann is in Oslo"]
    await memory.delete(record.id)
    assert all(row.deleted for row in emulator.memories.values())


async def test_an_add_cut_off_before_its_facts_knew_of_each_other_is_still_one_memory(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator.facts = lambda text: text.split(". ")
    emulator.faults.next(CloseConnection(applied=False), path="/memory/batch-update")
    with pytest.raises(ProviderUnavailableError):
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


@pytest.mark.parametrize("content", ["a", "ok", "thank you", "日本", "👩‍👩‍👧‍👦", "x" * 100_000])
async def test_texts_that_memorysync_itself_would_refuse_are_stored(
    memory: AsyncMemory, sdk: Sdk, content: str
) -> None:
    if len(content) < 10:
        with pytest.raises(Exception, match="at least 10 characters"):
            sdk("ann").add(content)
    record = await memory.add(content, user_id="ann")
    assert (await memory.get(record.id)).content == content


async def test_equal_texts_are_separate_memories_where_memorysync_alone_keeps_one(
    memory: AsyncMemory, sdk: Sdk, emulator: Emulator
) -> None:
    sdk("bob").add("Bob likes green tea")
    assert isinstance(sdk("bob").add("Bob likes green tea"), AddSkippedResponse)
    records = [await memory.add("Bob likes green tea", user_id="ann") for _ in range(3)]
    assert len({record.id for record in records}) == 3
    assert len(await contents(memory)) == 3


@pytest.mark.promise(9)
async def test_a_text_that_memorysync_finds_worthless_or_takes_for_another_is_refused_aloud(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.facts = lambda text: []
    with pytest.raises(InvalidRequestError, match="no_high_value_content"):
        await memory.add("hm", user_id="ann")
    emulator.facts = lambda text: ["Ann likes tea"]
    await memory.add("Ann likes tea", user_id="ann")
    with pytest.raises(ConflictError, match="duplicate") as caught:
        await memory.add("Tea is what Ann likes", user_id="ann")
    assert "Tea" not in str(caught.value)
    outcomes = await memory.add_many([{"content": "Ann: tea!", "user_id": "ann"}])
    assert isinstance(outcomes[0], ConflictError)


async def test_a_rejected_item_of_a_batch_is_its_own_outcome(
    memory: AsyncMemory, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = emulator.take

    def rejecting(item: dict[str, Any], end_user: str) -> dict[str, Any]:
        rejected = {"status": "rejected", "reason": "The text 'tea' is bad", "memory_ids": []}
        return rejected if "tea" in str(item["text"]) else take(item, end_user)

    monkeypatch.setattr(emulator, "take", rejecting)
    first, second = await memory.add_many([{"content": one, "user_id": "ann"} for one in ("tea", "coffee")])
    assert isinstance(first, InvalidRequestError)
    assert "tea" not in str(first)
    assert isinstance(second, MemoryRecord)
    assert await contents(memory) == ["coffee"]


async def test_a_batch_is_one_request_for_fifty_memories_of_a_user(memory: AsyncMemory, emulator: Emulator) -> None:
    items = [{"content": f"note {n}", "user_id": user} for n in range(60) for user in ("ann", "bob")]
    outcomes = await memory.add_many(items)
    assert [(one.content, one.user_id) for one in outcomes if isinstance(one, MemoryRecord)] == [
        (item["content"], item["user_id"]) for item in items
    ]
    assert emulator.counters.by_route[ADD] == 4


# Content that changes


async def test_a_changed_content_keeps_the_id_and_leaves_nothing_of_the_old_text(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann", tags=["a"])
    changed = await memory.update(record.id, content="Ann drinks tea now")
    free = {"content", "updated_at", "version"}
    assert changed.model_dump(exclude=free) == record.model_dump(exclude=free)
    for client in (memory, other):
        assert await client.get(record.id) == changed
        assert [one async for one in client.iter("ann")] == [changed]
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [changed]
    (left,) = (row for row in emulator.memories.values() if not row.deleted)
    assert "coffee" not in f"{left.text} {left.metadata}"
    assert (await other.update(record.id, content="Ann drinks coffee")).id == record.id
    assert (await memory.get(record.id)).content == "Ann drinks coffee"
    await memory.delete(record.id)
    with pytest.raises(NotFoundError):
        await other.get(record.id)


async def test_reading_is_one_request_also_after_a_change_of_content(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    seen = emulator.counters
    seen.by_route.clear()
    await other.get(record.id)
    assert dict(seen.by_route) == {GET: 1}
    await memory.update(record.id, content="Ann drinks tea now")
    for client, first, then in (
        (memory, {GET: 1}, {GET: 1}),  # which made the change
        (other, {GET: 1, QUERY: 1}, {GET: 1}),  # which has to look it up, once
    ):
        for expected in (first, then):
            seen.by_route.clear()
            assert (await client.get(record.id)).content == "Ann drinks tea now"
            assert dict(seen.by_route) == expected


async def test_a_changed_memory_is_found_while_searches_do_not_find_it(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    emulator.embedding_down = True
    await memory.update(record.id, content="Ann drinks tea now")
    assert (await other.get(record.id)).content == "Ann drinks tea now"
    emulator.quota = "silent"
    assert (await other.get(record.id)).content == "Ann drinks tea now"


@pytest.mark.parametrize("indexed", [True, False])
async def test_readers_take_the_new_content_when_the_change_is_cut_off_before_the_old_rows_are_gone(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator, indexed: bool
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    emulator.embedding_down = not indexed
    emulator.faults.next(CloseConnection(applied=False), method="DELETE", path="/memory/forget")
    with pytest.raises(ProviderUnavailableError):
        await memory.update(record.id, content="Ann drinks tea now")
    assert sum(not row.deleted for row in emulator.memories.values()) == 2
    for client in (memory, other):
        got = await client.get(record.id)
        assert got.content == "Ann drinks tea now"
        assert [one async for one in client.iter("ann")] == [got]
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [got]
    await other.update(record.id, tags=["late"])
    assert [hit.memory.tags for hit in await memory.search("who drinks coffee", "ann")] == [["late"]]
    await other.delete(record.id)
    assert all(row.deleted for row in emulator.memories.values())


async def test_readers_keep_the_old_content_when_the_change_is_cut_off_before_the_new_rows_are_there(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    emulator.faults.next(CloseConnection(applied=False), method="POST", path="/memory/bulk-add")
    with pytest.raises(ProviderUnavailableError):
        await memory.update(record.id, content="Ann drinks tea now")
    for client in (memory, other):
        assert await client.get(record.id) == record
        assert [hit.memory for hit in await client.search("who drinks coffee", "ann")] == [record]
    changed = await other.update(record.id, tags=["b"])
    assert await memory.get(record.id) == changed


@pytest.mark.parametrize("refusal", ["silent", "strict", "worthless"])
async def test_a_refused_change_of_content_changes_nothing(
    memory: AsyncMemory, emulator: Emulator, refusal: str
) -> None:
    record = await memory.add("Ann drinks coffee", user_id="ann")
    if refusal == "worthless":
        emulator.facts = lambda text: []
    else:
        emulator.quota = "silent" if refusal == "silent" else "strict"
    with pytest.raises((RateLimitedError, InvalidRequestError)):
        await memory.update(record.id, content="Ann drinks tea now")
    emulator.counters.by_route.clear()
    assert await memory.get(record.id) == record
    assert dict(emulator.counters.by_route) == {GET: 1}


# The plan's limit


async def test_an_add_over_the_plan_is_an_error_though_memorysync_answers_that_all_is_well(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    emulator.quota = "silent"
    with pytest.raises(RateLimitedError, match="over its plan"):
        await memory.add("tea", user_id="ann")
    (outcome,) = await memory.add_many([{"content": "tea", "user_id": "ann"}])
    assert isinstance(outcome, RateLimitedError)
    with pytest.raises(RateLimitedError, match="over its plan"):
        await memory.search("tea", "ann")
    emulator.quota = ""
    await memory.add("tea", user_id="ann")
    assert len(await memory.search("tea", "ann")) == 1


async def test_a_search_over_the_plan_looks_through_the_listing_where_memorysync_says_it_found_nothing(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("Ann drinks tea", user_id="ann")
    emulator.quota = "silent"
    assert [hit.memory for hit in await memory.search("tea", "ann")] == [record]
    emulator.quota = "strict"
    with pytest.raises(RateLimitedError):
        await memory.search("tea", "ann")


# Keys


@pytest.mark.parametrize(("indexed", "adds"), [(True, 1), (False, 2)])
async def test_an_answer_that_was_lost_is_no_second_memory(emulator: Emulator, indexed: bool, adds: int) -> None:
    emulator.embedding_down = not indexed
    async with AsyncMemory(MemorySync(**emulator.provider_options()), retries=2) as memory:
        emulator.faults.next(CloseConnection(), path="/memory/bulk-add")
        record = await memory.add("tea", user_id="ann")
        assert [one async for one in memory.iter("ann")] == [record]
    assert emulator.counters.by_route[ADD] == adds


async def test_a_key_is_known_again_though_no_search_finds_the_memory(
    memory: AsyncMemory, other: AsyncMemory, emulator: Emulator
) -> None:
    emulator.embedding_down = True
    record = await memory.add("tea", user_id="ann", idempotency_key="k")
    assert await other.add("tea", user_id="ann", idempotency_key="k") == record
    with pytest.raises(ConflictError):
        await other.add("coffee", user_id="ann", idempotency_key="k")
    await memory.update(record.id, content="coffee")
    assert (await other.add("tea", user_id="ann", idempotency_key="k")).id == record.id
    await memory.delete(record.id)
    with pytest.raises(ConflictError, match="deleted"):
        await other.add("tea", user_id="ann", idempotency_key="k")


# Listing and deleting


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("shown", [True, False])
async def test_every_memory_is_listed_whether_or_not_listings_show_metadata(
    memory: AsyncMemory, emulator: Emulator, shown: bool
) -> None:
    emulator.lists_metadata = shown
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(45)])
    assert len((await memory.list("ann")).items) == 45


async def test_a_key_that_may_not_list_projects_lists_by_export(emulator: Emulator) -> None:
    emulator.lists_projects = False
    async with AsyncMemory(MemorySync(**emulator.provider_options())) as memory:
        record = await memory.add("tea", user_id="ann")
        assert [one async for one in memory.iter("ann")] == [record]
    assert emulator.counters.by_route["GET /memory/export"] == 1
    assert emulator.counters.by_route[LIST] == 0


@pytest.mark.usefixtures("small_pages")
async def test_no_memory_is_missed_when_others_are_deleted_between_two_pages(
    memory: AsyncMemory, sdk: Sdk, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(60)])
    page, pages = Api._page, 0

    async def deleting(self: Api, *args: Any) -> Any:
        nonlocal pages
        pages += 1
        if pages == 2:
            sdk("ann").forget([60 - n for n in range(10)])  # of the first page, which was read
        return await page(self, *args)

    monkeypatch.setattr(Api, "_page", deleting)
    found = [record.content for record in (await memory.list("ann", limit=100)).items]
    left = {row.text.partition("\n")[0] for row in emulator.memories.values() if not row.deleted}
    assert len(left) == 50
    assert left <= set(found)


async def test_rows_that_other_programs_or_memorysync_itself_made_are_no_memories_and_no_obstacle(
    memory: AsyncMemory, sdk: Sdk, emulator: Emulator
) -> None:
    record = await memory.add("Ann likes tea", user_id="ann")
    sdk("ann").add("a summary of what Ann likes")
    sdk("ann").add("another fact about what Ann likes", metadata={"by": "somebody"}, tags=["x"])
    assert [one async for one in memory.iter("ann")] == [record]
    assert [hit.memory for hit in await memory.search("what does Ann like", "ann")] == [record]
    forged = record.id.replace(".1.", ".2.")
    with pytest.raises(NotFoundError):
        await memory.get(forged)
    assert await memory.delete_all("ann") == 1
    assert all(row.deleted for row in emulator.memories.values())


async def test_an_id_that_was_never_made_here_is_not_found_without_a_request(
    memory: AsyncMemory, emulator: Emulator
) -> None:
    record = await memory.add("tea", user_id="ann")
    token, number, name = record.id.split(".")
    seen = emulator.counters.requests
    for id in (
        "7",
        "../7",
        f"{token}.0.{name}",
        f"{token}.-1.{name}",
        f"{token}.{number}.{name}\n",
        f"{token}.٣.{name}",
    ):
        with pytest.raises(NotFoundError):
            await memory.get(id)
    with pytest.raises(NotFoundError):
        await memory.get(record.id, user_id="bob")
    assert emulator.counters.requests == seen


HOSTILE = (
    "../org_1/victim",
    "victim\r\nX-End-User-ID: victim",
    "ü ser/../x?y#z",
    "*",
    "victim' OR '1'='1",
    "..",
    "%2e%2e",
)


async def test_no_user_id_reaches_another_user_nor_the_account(memory: AsyncMemory, emulator: Emulator) -> None:
    kept = await memory.add("secret", user_id="victim")
    for user in HOSTILE:
        mine = await memory.add("mine", user_id=user)
        assert [one async for one in memory.iter(user)] == [mine]
        assert [hit.memory for hit in await memory.search("secret", user)] == [mine]
        await memory.update(mine.id, content="changed")
        for attempt in (memory.get(kept.id, user_id=user), memory.delete(kept.id, user_id=user)):
            with pytest.raises(NotFoundError):
                await attempt
        assert await memory.delete_all(user) == 1
    assert [one async for one in memory.iter("victim")] == [kept]
    assert "DELETE /memory/user/purge" not in emulator.counters.by_route


async def test_a_tag_of_the_users_cannot_pass_for_one_of_ours(memory: AsyncMemory, emulator: Emulator) -> None:
    victim = await memory.add("kept", user_id="ann")
    tag = (emulator.memories[1].tags or [])[0]
    decoy = await memory.add("decoy", user_id="ann", tags=[tag, "openproto:scope:a"])
    assert [hit.memory for hit in await memory.search("decoy", "ann", tag=tag)] == [decoy]
    assert await memory.search("decoy", "ann", scope="a") == []
    await memory.delete(victim.id)
    assert [one async for one in memory.iter("ann")] == [decoy]


async def test_a_scope_and_a_tag_are_filtered_by_memorysync_itself(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add_many([{"content": f"tea and note {n}", "user_id": "ann"} for n in range(150)])
    record = await memory.add("nothing alike", user_id="ann", scope="agent/a/run/r", tags=["t"])
    emulator.counters.by_route.clear()
    narrowings: list[dict[str, Any]] = [{"scope": "agent/a"}, {"tag": "t"}]
    for narrowed in narrowings:
        assert [hit.memory for hit in await memory.search("tea and note", "ann", **narrowed)] == [record]
    assert dict(emulator.counters.by_route) == {QUERY: 2}


async def test_another_users_row_in_an_answer_is_dropped_with_an_error(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add("secret", user_id="victim")
    record = await memory.add("mine", user_id="ann")
    foreign = emulator.memories[1].answer(0.9)
    emulator.faults.next(Status(200, {"memories": [foreign], "latency_ms": 1.0}), path="/memory/query")
    emulator.faults.next(Status(200, {**foreign, "id": 2}), path="/memory/2")
    for attempt in (memory.search("secret", "ann"), memory.get(record.id)):
        with pytest.raises(ProviderError, match="another user's memory") as caught:
            await attempt
        assert "secret" not in str(caught.value)


async def test_a_project_is_named_with_every_memory(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[bool, str | None]] = set()
    respond = emulator.respond

    def noting(request: Request) -> Answer:
        seen.add((request.path == "/org/projects", request.headers.get("x-project-id")))
        return respond(request)

    monkeypatch.setattr(emulator, "respond", noting)
    async with AsyncMemory(MemorySync(**emulator.provider_options(), project_id="proj_1")) as memory:
        await memory.add("tea", user_id="ann")
        await memory.list("ann")
    assert seen == {(True, None), (False, "proj_1")}


def test_nothing_in_the_adapter_can_erase_an_account() -> None:
    used: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    assert "forget" in used
    assert not [one for one in used if "purge" in one]
    assert not used & {"_request", "_http", "delete", "request"}, "only the SDK's own methods reach MemorySync"
