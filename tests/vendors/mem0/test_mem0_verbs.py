"""The eight operations of mem0's guide under openproto's names, on mem0's library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from openproto import AsyncMemory, NotFoundError


@pytest.fixture
async def memory(folder: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("mem0", path=folder / "store", audit=f"sqlite:///{folder}/audit.db") as client:
        yield client


@pytest.mark.promise(94)
@pytest.mark.promise(102)
@pytest.mark.promise(105)
@pytest.mark.promise(106)
@pytest.mark.promise(108)
async def test_each_operation_of_mem0_has_a_verb(memory: AsyncMemory) -> None:
    added = await memory.add("likes tea", user_id="ann", scope="agent/7")
    hits = await memory.search("What does she like?", "ann", limit=3)
    assert [hit.memory for hit in hits] == [added]
    assert (await memory.list("ann")).items == [added]
    assert await memory.get(added.id) == added
    updated = await memory.update(added.id, content="likes coffee")
    assert (await memory.get(added.id)).content == updated.content == "likes coffee"
    await memory.delete(added.id)
    history = await memory.audit("ann", memory_id=added.id)
    assert [entry.action for entry in history if entry.action in ("add", "update", "delete")] == [
        "delete", "update", "add",
    ]  # fmt: skip
    kept = await memory.add("likes tea", user_id="bob")
    await memory.add("likes rain", user_id="ann")
    assert await memory.delete_all("ann") == 1
    assert (await memory.list("bob")).items == [kept]


@pytest.mark.promise(96)
@pytest.mark.promise(103)
async def test_users_agents_and_runs_select_in_every_verb_that_reads(memory: AsyncMemory) -> None:
    scopes = [None, "agent/7", "agent/7/run/1", "agent/7/run/2", "agent/8"]
    for user in ("ann", "bob"):
        await memory.add_many([{"content": f"tea {scope}", "user_id": user, "scope": scope} for scope in scopes])
    combinations = {"*": scopes, "agent/7": scopes[1:4], "agent/7/run/1": ["agent/7/run/1"], "agent/9": []}
    for filter, selected in combinations.items():
        listed = (await memory.list("ann", scope=filter)).items
        found = [hit.memory for hit in await memory.search("tea", "ann", scope=filter)]
        cited = {citation.memory_id for citation in (await memory.context("tea", "ann", scope=filter)).citations}
        assert {record.scope for record in listed} == {record.scope for record in found} == set(selected)
        assert {record.user_id for record in listed + found} <= {"ann"}
        assert cited == {record.id for record in listed}
    assert await memory.delete_all("ann", scope="agent/7/run/1") == 1


@pytest.mark.promise(104)
@pytest.mark.promise(106)
async def test_an_id_that_is_not_there_is_not_found_by_any_verb(memory: AsyncMemory) -> None:
    gone = await memory.add("tea", user_id="ann")
    await memory.delete(gone.id)
    for id in (gone.id, "never"):
        for call in (memory.get(id), memory.update(id, content="x"), memory.delete(id)):
            with pytest.raises(NotFoundError):
                await call
