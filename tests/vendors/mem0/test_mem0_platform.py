"""What the hosted platform does on its own, and what this provider makes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openproto_conformance.emulators import Fault, HtmlWith200, Status, TruncatedJson
from openproto_conformance.emulators.mem0 import Mem0Platform

from openproto import (
    AsyncMemory,
    NotFoundError,
    OpenProtoError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)

ADD, SEARCH, LIST, ONE = "/v3/memories/add/", "/v3/memories/search/", "/v3/memories/", "/v1/memories/*/"


def client(platform: Mem0Platform, **options: Any) -> AsyncMemory:
    return AsyncMemory("mem0", retries=0, timeout=10, **platform.provider_options(), **options)


async def add_as_another_program(platform: Mem0Platform, text: str, **options: Any) -> str:
    """Add a memory as a program does that uses mem0's client itself."""
    from openproto_adapters.mem0.quiet_import import import_mem0

    def add() -> str:
        theirs = import_mem0().MemoryClient(api_key=platform.api_key, host=platform.url)
        (added,) = theirs.add(text, infer=False, **options)["results"]
        theirs.client.close()
        return str(added["id"])

    return await asyncio.to_thread(add)


async def test_a_repeated_text_is_a_memory_of_its_own_though_the_platform_drops_repeats(
    platform: Mem0Platform,
) -> None:
    async with client(platform) as memory:
        records = [await memory.add("tea", user_id="ann", tags=[str(n)]) for n in range(3)]
        assert len({record.id for record in records}) == 3
        done = await memory.wait_for_ingest([record.id for record in records], "ann")
        assert {record.content for record in done} == {"tea"}
        assert {hit.memory.content for hit in await memory.search("tea", "ann")} == {"tea"}
        updated = await memory.update(records[1].id, content="coffee")
        assert (updated.content, (await memory.get(records[1].id)).content) == ("coffee", "coffee")
        # In the platform's own eyes the repeats have a mark at their end.
        texts = sorted(one.text for one in platform.memories.values())
        assert texts[:2] == ["coffee", "tea"]
        assert texts[2].startswith("tea\n\n[repeated: ")


@pytest.mark.promise(9)
@pytest.mark.promise(33)
async def test_a_memory_is_indexing_until_a_search_shows_it(platform: Mem0Platform) -> None:
    platform.lag = 60
    async with client(platform) as memory:
        record = await memory.add("tea", user_id="ann")
        assert (record.status, (await memory.get(record.id)).status) == ("indexing", "indexing")
        assert await memory.search("tea", "ann") == []
        platform.lag = 0
        assert (await memory.get(record.id)).status == "done"
        assert [hit.memory.id for hit in await memory.search("tea", "ann")] == [record.id]


async def test_one_search_tells_of_a_hundred_memories_that_are_waited_for(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        records = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(250)])
        elsewhere = await memory.add("note of another user", user_id="bob")
        platform.lag = 0
        ids = [record.id for record in records if not isinstance(record, OpenProtoError)]
        done = await memory.wait_for_ingest(ids, "ann")
        assert {record.status for record in done} == {"done"}
        assert platform.counters.by_route[f"POST {SEARCH}"] == 3
        assert (await memory.get(elsewhere.id)).status == "done"


async def test_a_search_shows_neither_what_was_updated_nor_what_was_deleted_meanwhile(platform: Mem0Platform) -> None:
    platform.lag = 0
    async with client(platform) as memory:
        updated, deleted = [await memory.add(f"tea {n}", user_id="ann") for n in range(2)]
        platform.lag = 60  # from here on the index stands still: it shows what has been there for two minutes
        for one in platform.memories.values():
            one.versions[0] = one.versions[0]._replace(at=one.versions[0].at - 120)
        await memory.update(updated.id, content="coffee")
        await memory.delete(deleted.id)
        assert [hit.memory.content for hit in await memory.search("tea", "ann")] == ["coffee"]


async def test_a_listing_goes_through_all_pages(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(230)])
        assert len([record async for record in memory.iter("ann")]) == 230
        assert platform.counters.by_route["POST /v3/memories/"] > 2


async def test_deleting_everything_waits_until_the_platform_has_done_so(platform: Mem0Platform) -> None:
    platform.lag = 0.3
    async with client(platform) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(3)])
        other = await memory.add("note", user_id="bob")
        assert await memory.delete_all("ann") == 3
        assert (await memory.list("ann")).items == []
        assert [one.id for one in (await memory.list("bob")).items] == [other.id]
        assert await memory.delete_all("*") == 0
        assert len((await memory.list("bob")).items) == 1


async def test_a_deletion_that_the_platform_fails_to_carry_out_is_an_error(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        await memory.add("tea", user_id="ann")
        platform.events_fail = True
        with pytest.raises(ProviderError, match="failed to carry it out"):
            await memory.delete_all("ann")


async def test_with_infer_an_add_waits_for_its_event(platform: Mem0Platform) -> None:
    platform.lag = 0.2
    async with client(platform, infer=True) as memory:
        record = await memory.add("I like tea", user_id="ann", tags=["a"])
        assert (await memory.get(record.id)).tags == ["a"]
        with pytest.raises(ProviderError, match="nothing new"):
            await memory.add("I like tea", user_id="ann")
        platform.events_fail = True
        with pytest.raises(ProviderError, match="failed to carry it out"):
            await memory.add("I like coffee", user_id="ann")


async def test_memories_of_other_programs_are_records_too_whatever_their_run_is_called(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        options = {"user_id": "ann", "agent_id": "7", "run_id": "1", "metadata": {"mood": "calm"}}
        id = await add_as_another_program(platform, "likes tea", **options)
        record = await memory.get(id)
        assert (record.content, record.scope, record.extensions) == (
            "likes tea",
            "agent/7/run/1",
            {"x-mem0": {"mood": "calm"}},
        )
        assert (await memory.list("ann", scope="agent/7/run/1")).items == [record]
        (record,) = await memory.wait_for_ingest([id], "ann")
        assert [hit.memory for hit in await memory.search("tea", "ann")] == [record]
        updated = await memory.update(id, tags=["drink"])
        assert (updated.tags, updated.scope) == (["drink"], "agent/7/run/1")
        assert platform.memories[id].versions[-1].metadata["mood"] == "calm"  # type: ignore[index]


async def test_opening_asks_whether_the_key_is_good(platform: Mem0Platform) -> None:
    with pytest.raises(UnauthorizedError, match="api_key="):
        await AsyncMemory("mem0", base_url=platform.url, api_key="wrong").list("ann")
    for status, error in ((403, ScopeDeniedError), (429, RateLimitedError), (500, ProviderUnavailableError)):
        platform.faults.next(Status(status), path="/v1/ping/")
        with pytest.raises(error):
            await client(platform).list("ann")
    with pytest.raises(ProviderUnavailableError):
        await AsyncMemory("mem0", base_url="http://127.0.0.1:1", api_key="k", retries=0).list("ann")


async def test_the_key_may_stand_in_the_environment_but_does_not_choose_the_platform(
    platform: Mem0Platform, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnauthorizedError, match="MEM0_API_KEY"):
        await AsyncMemory("mem0", base_url=platform.url).list("ann")
    monkeypatch.setenv("MEM0_API_KEY", platform.api_key)
    async with AsyncMemory("mem0", base_url=platform.url) as memory:
        await memory.add("tea", user_id="ann")
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add("coffee", user_id="ann")
    assert [one.text for one in platform.memories.values()] == ["tea"]


@pytest.mark.parametrize(
    "fault", [HtmlWith200(), TruncatedJson(), Status(200, body={"results": 5}), Status(200, body=[])]
)
async def test_an_answer_of_another_shape_is_a_provider_error(platform: Mem0Platform, fault: Fault) -> None:
    async with client(platform) as memory:
        for call, path in (
            (lambda: memory.add("tea", user_id="ann"), ADD),
            (lambda: memory.search("tea", "ann"), SEARCH),
            (lambda: memory.list("ann"), LIST),
        ):
            platform.faults.next(fault, path=path)
            with pytest.raises(ProviderError):
                await call()


async def test_another_users_memory_in_an_answer_is_an_error_and_goes_no_further(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        record = await memory.add("tea", user_id="bob", idempotency_key="key")
        foreign = {
            "id": record.id,
            "memory": "tea",
            "user_id": "bob",
            "metadata": platform.memories[record.id].versions[-1].metadata,
            "created_at": "2026-01-01T00:00:00Z",
            "score": 1.0,
        }
        body = {"count": 1, "next": None, "previous": None, "results": [foreign]}
        for call, path in (
            (lambda: memory.search("tea", "ann"), SEARCH),
            (lambda: memory.list("ann"), LIST),
            (lambda: memory.add("tea", user_id="ann", idempotency_key="key"), LIST),
        ):
            platform.faults.next(Status(200, body=body), path=path)
            with pytest.raises(ProviderError, match="another user's memory"):
                await call()
        platform.faults.next(Status(200, body=foreign), path=ONE)
        with pytest.raises(NotFoundError):
            await memory.get(record.id, user_id="ann")


async def test_ids_and_users_reach_no_path_and_no_filter_unescaped(platform: Mem0Platform) -> None:
    async with client(platform) as memory:
        await memory.add("tea", user_id="ann")
        before = platform.counters.requests
        for id in ("../v1/memories", "..%2f", "*", "x?user_id=ann", "00000000"):
            with pytest.raises(NotFoundError):
                await memory.get(id)
        assert platform.counters.requests == before
        for user in ("*", "../ann", "ann&user_id=bob", '{"ne":"x"}', "ann bob"):
            assert (await memory.list(user)).items == []
            assert await memory.delete_all(user) == 0
            await memory.add("own", user_id=user)
            assert await memory.delete_all(user) == 1
        assert len((await memory.list("ann")).items) == 1


async def test_capabilities_say_what_this_kind_is(platform: Mem0Platform, folder: Path) -> None:
    async with client(platform) as hosted, AsyncMemory("mem0", path=folder) as local:
        there, here = await hosted.capabilities(), await local.capabilities()
    assert (there.x_openproto.cancellation, here.x_openproto.cancellation) == ("aborting", "detached")
    assert (there.features.async_ingestion, here.features.async_ingestion) == (True, False)
    assert there.x_openproto.support["update"] == "native"
