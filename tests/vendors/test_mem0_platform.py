"""What mem0's hosted platform does by itself, and what this provider makes of it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest
from openproto_adapters.mem0 import platform
from openproto_conformance.emulators import Answer, Request, Status
from openproto_conformance.emulators.mem0 import Mem0Platform

from openproto import AsyncMemory, errors


async def test_a_repeated_text_is_another_memory(memory: AsyncMemory, emulator: Mem0Platform) -> None:
    records = [await memory.add("tea", user_id="ann", tags=[str(n)]) for n in range(3)]
    assert len({record.id for record in records}) == 3
    done = await memory.wait_for_ingest([record.id for record in records], "ann")
    assert {record.content for record in done} == {"tea"}
    assert {hit.memory.content for hit in await memory.search("tea", "ann")} == {"tea"}
    await memory.update(records[1].id, content="coffee")
    # In the platform's own eyes the repeats have a mark at their end.
    texts = sorted(one.text for one in emulator.memories.values())
    assert texts[:2] == ["coffee", "tea"]
    assert texts[2].startswith("tea\n\n[repeated: ")


async def test_one_search_shows_a_hundred_that_are_waited_for(memory: AsyncMemory, emulator: Mem0Platform) -> None:
    records = await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(110)])
    elsewhere = await memory.add("note of another user", user_id="bob")
    emulator.lag = 0
    ids = [record.id for record in records if not isinstance(record, errors.OpenProtoError)]
    done = await memory.wait_for_ingest(ids, "ann")
    assert {record.status for record in done} == {"done"}
    assert emulator.counters.by_route["POST /v3/memories/search/"] == 2
    assert (await memory.get(elsewhere.id)).status == "done"


async def test_a_search_shows_nothing_that_was_changed_since(memory: AsyncMemory, emulator: Mem0Platform) -> None:
    emulator.lag = 0
    updated, deleted = [await memory.add(f"tea {n}", user_id="ann") for n in range(2)]
    emulator.lag = 60  # from here on the index stands still: it shows what has been there for two minutes
    for one in emulator.memories.values():
        one.versions[0] = one.versions[0]._replace(at=one.versions[0].at - 120)
    await memory.update(updated.id, content="coffee")
    await memory.delete(deleted.id)
    assert [hit.memory.content for hit in await memory.search("tea", "ann")] == ["coffee"]


async def test_deleting_everything_waits_until_it_is_done(memory: AsyncMemory, emulator: Mem0Platform) -> None:
    emulator.lag = 0.3
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(3)])
    other = await memory.add("note", user_id="bob")
    assert await memory.delete_all("ann") == 3
    assert (await memory.list("ann")).items == []
    assert [one.id for one in (await memory.list("bob")).items] == [other.id]
    assert await memory.delete_all("*") == 0
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(230)])
    assert len([record async for record in memory.iter("ann")]) == 230
    emulator.events_fail = True
    with pytest.raises(errors.ProviderError, match="failed to carry it out"):
        await memory.delete_all("bob")


async def test_a_listing_is_whole_while_others_write(
    memory: AsyncMemory, emulator: Mem0Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "_PAGE", 2)
    pages, list_memories = count(), emulator.list_memories

    def writing(request: Request) -> Answer:
        page, shown = next(pages), list_memories(request)
        if page == 0:
            emulator._remove(newest, emulator.now())
        elif page == 1:
            emulator._create("new", newest.entities, {"messages": []}, emulator.now())
        return shown

    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(6)])
    newest = max(emulator.memories.values(), key=lambda one: one.versions[0].at)
    monkeypatch.setattr(emulator, "list_memories", writing)
    found = {record.content for record in (await memory.list("ann")).items}
    assert found == {one.text for one in emulator.memories.values() if one.gone_at is None}


async def test_with_infer_an_add_waits_for_its_event(emulator: Mem0Platform) -> None:
    emulator.lag = 0.2
    async with AsyncMemory("mem0", retries=0, infer=True, **emulator.provider_options()) as memory:
        record = await memory.add("I like tea", user_id="ann", tags=["a"])
        assert (await memory.get(record.id)).tags == ["a"]
        with pytest.raises(errors.ProviderError, match="nothing new"):
            await memory.add("I like tea", user_id="ann")
        emulator.events_fail = True
        with pytest.raises(errors.ProviderError, match="failed to carry it out"):
            await memory.add("I like coffee", user_id="ann")


async def test_another_users_memory_in_a_listing_is_an_error(memory: AsyncMemory, emulator: Mem0Platform) -> None:
    record = await memory.add("tea", user_id="bob", idempotency_key="key")
    metadata = emulator.memories[record.id].versions[-1].metadata
    foreign = {"id": record.id, "memory": "tea", "user_id": "bob", "metadata": metadata}
    emulator.faults.next(Status(200, body={"count": 1, "next": None, "results": [foreign]}), path="/v3/memories/")
    with pytest.raises(errors.ProviderError, match="another user's memory"):
        await memory.add("tea", user_id="ann", idempotency_key="key")


async def test_a_path_wins_over_a_key(emulator: Mem0Platform, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEM0_API_KEY", emulator.api_key)
    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add("coffee", user_id="ann")
    assert emulator.memories == {}
