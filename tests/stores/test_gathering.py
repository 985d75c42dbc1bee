"""Calls at one time go to a store together, each with its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from waiting import cancelled

from openproto import AsyncMemory, ConflictError, MemoryInput, NotFoundError, OpenProtoError
from openproto.provider import Call, current_call, generated_key
from openproto.stores.gathering import Gatherer


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each trip to the store took along; that of a lone call on postgres is not counted."""
    found: list[int] = []
    arrived = Gatherer._arrived

    def counted(self: Gatherer[Any, Any], outcomes: asyncio.Future[Any]) -> None:
        found.append(len(self._under_way[outcomes]))
        arrived(self, outcomes)

    monkeypatch.setattr(Gatherer, "_arrived", counted)
    return found


@pytest.fixture
async def memory(store: Any) -> Any:
    """A client whose reads leave no entries, which would be writes too."""
    async with store.client(audit_reads=False) as client:
        yield client


async def contents(memory: AsyncMemory, user: str) -> list[str]:
    return sorted([record.content async for record in memory.iter(user)])


async def test_writes_go_together_each_with_its_answer(store: Any, memory: AsyncMemory, trips: list[int]) -> None:
    ids = [(await memory.add(f"note {n}", user_id="ada", key=f"k{n}")).id for n in range(6)]
    odd = ["t,{", '"']
    trips.clear()
    calls: dict[Awaitable[Any], Any] = {
        memory.add("hers", user_id="ada"): "hers",
        memory.add("his", user_id="bob"): "his",
        memory.add("twice", user_id="ada", idempotency_key="i"): "twice",
        memory.add("twice", user_id="ada", idempotency_key="i", tags=odd): ConflictError,
        memory.add("better", user_id="ada", supersedes=[ids[0]]): "better",
        memory.add("of nobody", user_id="bob", supersedes=[ids[0]]): NotFoundError,
        memory.update(ids[1], user_id="ada", tags=odd): "note 1",
        memory.update(ids[2], user_id="ada", tags=[], if_version="0"): ConflictError,
        memory.update(ids[3], user_id="ada", tags=odd): "note 3",
        memory.update(ids[3], user_id="bob", tags=odd): NotFoundError,
        memory.put("renamed", user_id="ada", key="k2", tags=odd): "renamed",
        memory.put("stale", user_id="ada", key="k2", if_version="0"): ConflictError,
        memory.delete(ids[4], user_id="ada"): None,
        memory.delete("01a226be-687d-8a29-8637-abe479a2f03f", user_id="ada"): NotFoundError,
        memory.delete(ids[5], user_id="ada"): None,
        memory.delete(ids[3], user_id="bob"): NotFoundError,
    }
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    refused = [each for each in found if isinstance(each, OpenProtoError)]
    assert len(refused) == len({error.request_id for error in refused}) == 7
    told = [type(each) if isinstance(each, OpenProtoError) else getattr(each, "content", None) for each in found]
    assert told == [*calls.values()]
    assert await contents(memory, "ada") == sorted(["note 0", "note 1", "renamed", "note 3", "hers", "twice", "better"])
    assert (await memory.get(ids[1])).tags == (await memory.get(ids[3])).tags == odd
    assert max(trips) == {"sqlite": 16, "postgres": 2}[store.name]


async def test_what_waits_goes_together_without_the_cancelled(
    store: Any, memory: AsyncMemory, trips: list[int]
) -> None:
    first = await memory.add("first", user_id="ada", key="k")
    kinds: list[Callable[[], Awaitable[Any]]] = [
        lambda: memory.add("not this", user_id="ada"),
        lambda: memory.update(first.id, user_id="ada", content="not this"),
        lambda: memory.put("not this", user_id="ada", key="k"),
        lambda: memory.delete(first.id, user_id="ada"),
    ]
    trips.clear()
    async with store.locked():
        running = []
        for n in range(2):  # on postgres the first goes by a connection of its own
            running.append(asyncio.create_task(memory.add(f"at once {n}", user_id="ada")))
            await asyncio.sleep(0.05)
        calls = [memory.add(f"note {n}", user_id="ada") if n % 2 else kinds[n // 2 % 4]() for n in range(20)]
        waiting = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0.05)
        assert await cancelled(*waiting[::2], seconds=5)
        assert not any(call.done() for call in waiting[1::2])
    async with asyncio.timeout(10):
        await asyncio.wait([*running, *waiting])
    assert not any(call.cancelled() for call in waiting[1::2])
    assert max(trips) == {"sqlite": 11, "postgres": 6}[store.name]
    assert store.name == "postgres" or sum(trips) == 12  # there some of the cancelled are on their way already
    written = ["first", "at once 0", "at once 1", *(f"note {n}" for n in range(1, 20, 2))]
    assert await contents(memory, "ada") == sorted(written)
    assert {entry.action for entry in await memory.audit("ada")} == {"add"}


async def test_two_gatherings_are_under_way_at_once_and_share_no_fate() -> None:
    sent: list[tuple[list[int], asyncio.Future[Any]]] = []

    def send(calls: Any) -> asyncio.Future[Any]:
        sent.append((calls, asyncio.get_running_loop().create_future()))
        return sent[-1][1]

    async def turn() -> list[list[int]]:
        for _ in range(3):
            await asyncio.sleep(0)
        return [calls for calls, _ in sent]

    gatherer: Gatherer[int, str] = Gatherer(send, at_once=2)
    calls = [asyncio.create_task(gatherer(n)) for n in range(5)]
    assert await turn() == [[0, 1, 2], [3, 4]]
    calls += [asyncio.create_task(gatherer(n)) for n in range(5, 9)]
    assert len(await turn()) == 2
    for call in calls[3:5]:
        call.cancel()
    assert (await turn())[2:] == [[5, 6, 7, 8]]
    assert [outcomes.cancelled() for _, outcomes in sent] == [False, True, False]
    sent[0][1].set_exception(ValueError("together"))
    assert (await turn())[3:] == [[0]]
    sent[2][1].set_result(["five", "six", "seven", ValueError("alone")])
    assert (await turn())[4:] == [[1]]
    for _, outcomes in sent[3:]:
        outcomes.set_result(["again"])
    assert (await turn())[5:] == [[2]]
    sent[5][1].set_exception(ValueError("alone too"))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(outcome) for outcome in found] == [
        *("again", "again", "alone too", "", ""),
        *("five", "six", "seven", "alone"),
    ]


async def test_gatherings_of_one_user_that_are_under_way_at_once_agree_on_keys_and_never_block_each_other(
    memory: AsyncMemory,
) -> None:
    old = [(await memory.add(f"old {n}", user_id="ada")).id for n in range(4)]

    async def caller(number: int) -> list[tuple[int, str]]:
        found: list[tuple[int, str]] = []
        for turn in range(4):
            n = (number + turn) % 8
            await memory.put(f"put {number}.{turn}", user_id="ada", key=f"name {n % 3}")
            record = await memory.add(
                f"said {n}", user_id="ada", idempotency_key=f"k{n}", supersedes=[old[n % 4]] if n % 2 else None
            )
            found.append((n, record.id))
            assert (await memory.update(record.id, user_id="ada", tags=[f"{number}"])).id == record.id
        return found

    async with asyncio.timeout(60):
        said = await asyncio.gather(*(caller(number) for number in range(16)))
        await asyncio.gather(
            *(memory.add(f"new {n}", user_id="ada", supersedes=[old[n % 4], old[-1 - n // 8 % 4]]) for n in range(128))
        )
    assert len({pair for pairs in said for pair in pairs}) == 8
    assert len(await contents(memory, "ada")) == 4 + 3 + 8 + 128
    actions = [entry.action for entry in await memory.audit("ada", limit=1000)]
    assert (actions.count("add"), actions.count("update")) == (4 + 3 + 8 + 128, 64 - 3 + 64)


async def test_an_add_that_is_tried_again_is_written_once_and_not_after_its_deletion(memory: AsyncMemory) -> None:
    await memory.add("another", user_id="ada")
    provider = memory._session.provider
    item, key = MemoryInput(content="said once", user_id="ada"), generated_key("ada")
    current_call.set(Call("add", "a request", is_retry=True))
    for _ in range(2):
        assert (await provider.add(item, idempotency_key=key)).id == key
    await memory.delete(key, user_id="ada")
    with pytest.raises(ConflictError):
        await provider.add(item, idempotency_key=key)
    assert [record.content async for record in memory.iter("ada")] == ["another"]


async def test_what_is_skipped_as_a_duplicate_is_told_and_recorded(store: Any) -> None:
    async with store.client() as memory:
        first = await memory.add("note one", user_id="ada")
        skipped = await memory.add("Note  ONE.", user_id="ada", on_duplicate="skip")
        assert skipped == first.model_copy(update={"duplicate_of": first.id})
        assert [entry.action for entry in await memory.audit("ada", memory_id=first.id)] == ["add", "add"]
