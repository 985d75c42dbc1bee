"""Calls that are made at the same time go to a store together, and still each has its own answer, error, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from openproto import AsyncMemory, ConflictError, NotFoundError, OpenProtoError
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


def errors(outcomes: list[Any]) -> list[type[Exception]]:
    """Return the kinds of errors, each of which names another request."""
    found = [outcome for outcome in outcomes if isinstance(outcome, OpenProtoError)]
    assert len({error.request_id for error in found}) == len(found)
    return [type(error) for error in found]


async def test_gets_are_one_trip_and_each_has_its_own_answer(store: Any, memory: AsyncMemory, trips: list[int]) -> None:
    records = [await memory.add(f"note {n}", user_id="ada" if n % 2 else "bob") for n in range(20)]
    trips.clear()
    calls = [asyncio.create_task(memory.get(record.id, user_id="ada")) for record in records]
    calls += [asyncio.create_task(memory.get(id)) for id in (records[0].id, "no such id", records[0].id)]
    await asyncio.sleep(0)
    calls[2].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found.pop(2), asyncio.CancelledError)
    del records[2]
    for record, answer in zip(records, found, strict=False):
        assert answer == record if record.user_id == "ada" else isinstance(answer, NotFoundError)
    assert found[-3] == found[-1] == records[0]
    assert errors(found) == [NotFoundError] * 10
    assert (max(trips), sum(trips)) == {"sqlite": (21, 21), "postgres": (11, 21)}[store.name]  # in halves


async def test_all_kinds_of_writes_go_together_and_fail_alone(
    store: Any, memory: AsyncMemory, trips: list[int]
) -> None:
    first, second, third = [await memory.add(f"note {n}", user_id="ada", key=f"k{n}") for n in range(3)]
    trips.clear()
    calls: list[Awaitable[Any]] = [
        *(memory.add(f"new {n}", user_id="ada") for n in range(4)),
        memory.add("his", user_id="bob"),
        memory.add("twice", user_id="ada", idempotency_key="i"),
        memory.add("twice", user_id="ada", idempotency_key="i", tags=["other"]),
        memory.add("better", user_id="ada", supersedes=[first.id]),
        memory.add("of nobody", user_id="bob", supersedes=[first.id]),
        memory.put("renamed", user_id="ada", key="k1", tags=["t,{", '"']),
        memory.put("made", user_id="ada", key="new"),
        memory.put("stale", user_id="ada", key="k2", if_version="0"),
        memory.update(second.id, scope="s", user_id="ada"),
        memory.update(third.id, content="foreign", user_id="bob"),
        memory.delete(third.id, user_id="ada", if_version=third.version),
        memory.delete(second.id, user_id="bob"),
    ]
    found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
    assert errors(found) == [ConflictError, NotFoundError, ConflictError, NotFoundError, NotFoundError]
    renamed = await memory.get(key="k1", user_id="ada")
    assert (renamed.content, renamed.tags) == ("renamed", ["t,{", '"'])
    assert (await memory.get(first.id)).superseded_by == found[7].id
    adas = ["note 0", "renamed", "made", "twice", "better", *(f"new {n}" for n in range(4))]
    assert await contents(memory, "ada") == sorted(adas)
    assert await contents(memory, "bob") == ["his"]
    audit = (await memory.audit("ada"))[:-3]
    assert sorted(entry.action for entry in audit) == [*["add"] * 7, "delete", *["update"] * 2]
    assert len({entry.request_id for entry in audit}) == len(audit) == 10
    assert max(trips) == {"sqlite": 16, "postgres": 3}[store.name]


async def test_what_waits_goes_together_without_the_cancelled(
    store: Any, memory: AsyncMemory, trips: list[int]
) -> None:
    await memory.add("first", user_id="ada")
    trips.clear()
    async with store.locked():
        running = []
        for n in range(2):  # on postgres the first goes by a connection of its own
            running.append(asyncio.create_task(memory.add(f"at once {n}", user_id="ada")))
            await asyncio.sleep(0.05)
        adds = [asyncio.create_task(memory.add(f"note {n}", user_id="ada")) for n in range(20)]
        await asyncio.sleep(0.05)
        for call in adds[::2]:
            call.cancel()
    async with asyncio.timeout(10):
        await asyncio.wait([*running, *adds])
    assert [call.cancelled() for call in adds] == [True, False] * 10
    assert (max(trips), sum(trips)) == {"sqlite": (11, 12), "postgres": (6, 11)}[store.name]
    written = ["first", "at once 0", "at once 1", *(f"note {n}" for n in range(1, 20, 2))]
    assert await contents(memory, "ada") == sorted(written)


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
            await memory.update(record.id, user_id="ada", tags=[f"{number}"])
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
