"""A cancelled call ends at once, its connection too, and what it wrote is whole or absent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cancelled_updates import check_that_updates_are_whole
from openproto_adapters.memsy import Memsy
from openproto_conformance.emulators import Hang
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import AsyncMemory

WITHIN = 0.05
"""Seconds until the awaiter sees its cancellation: PROTOCOL 4.4."""

CONNECTIONS_WITHIN = 0.5


async def late(call: Coroutine[Any, Any, Any], arrived: Callable[[], None]) -> float:
    """Start the call, cancel it once it `arrived` at Memsy, and return after how many seconds it ended."""
    task = asyncio.create_task(call)
    await asyncio.to_thread(arrived)
    loop = asyncio.get_running_loop()
    cancelled = loop.time()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    return loop.time() - cancelled


@pytest.mark.parametrize("verb", ["add", "add_many", "search", "get"])
async def test_a_cancelled_call_ends_at_once_and_memsy_sees_it(
    memory: AsyncMemory, emulator: Emulator, verb: str
) -> None:
    emulator.lag = 60.0
    record = await memory.add("first", user_id="ann")
    calls: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
        "add": lambda: memory.add("tea", user_id="ann"),
        "add_many": lambda: memory.add_many([{"content": "tea", "user_id": "ann"}]),
        "search": lambda: memory.search("tea", "ann"),
        "get": lambda: memory.get(record.id),
    }
    seconds: list[float] = []
    with emulator.faults.always(Hang(), method="POST"):
        for left in range(10):
            arrived = partial(emulator.counters.wait_for, lambda seen: seen.in_flight == 1)
            seconds.append(await late(calls[verb](), arrived))
            gone = partial(emulator.counters.wait_for, lambda seen, left=left: seen.disconnects == left + 1)
            await asyncio.to_thread(gone, CONNECTIONS_WITHIN)
    assert max(seconds) < WITHIN, seconds
    assert [one.content for one in (await memory.list("ann")).items] == ["first"]
    assert len(emulator.events) == 1


async def test_a_hundred_cancelled_calls_leave_a_client_that_works(emulator: Emulator, path: Path) -> None:
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, width=8), retries=0) as memory:
        record = await memory.add("first", user_id="ann")
        with emulator.faults.always(Hang(), method="POST"):
            calls = [asyncio.create_task(memory.add(f"note {n}", user_id="ann")) for n in range(50)]
            calls += [asyncio.create_task(memory.search("tea", "ann")) for n in range(50)]
            await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == 8)
            for call in calls:
                call.cancel()
            _, pending = await asyncio.wait(calls, timeout=CONNECTIONS_WITHIN)
            assert not pending
            assert all(call.cancelled() for call in calls)
            await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == 0, CONNECTIONS_WITHIN)
        async with asyncio.timeout(1.0):
            assert (await memory.get(record.id)).content == "first"
        assert emulator.counters.max_in_flight == 8
        assert [one.content for one in (await memory.list("ann")).items] == ["first"]


async def test_an_update_that_is_cancelled_at_any_moment_leaves_the_memory_old_or_new(
    memory: AsyncMemory,
) -> None:
    await check_that_updates_are_whole(memory, "ann", updates=19)


async def test_waiting_for_the_processing_can_be_cancelled(emulator: Emulator, path: Path) -> None:
    emulator.lag = 60.0
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, wait=60.0)) as memory:
        adding = asyncio.create_task(memory.add("tea", user_id="ann"))
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.by_route["POST /v1/status"] >= 1)
        adding.cancel()
        done, _ = await asyncio.wait([adding], timeout=1.0)
        assert done == {adding}
        assert [one.content for one in (await memory.list("ann")).items] == ["tea"]


@pytest.mark.promise(36)
async def test_parallel_searches_come_back_in_order(memory: AsyncMemory) -> None:
    records = [await memory.add(f"the colour {n}", user_id=f"user {n}") for n in range(10)]
    for n, record in enumerate(records):
        await memory.wait_for_ingest([record.id], f"user {n}", timeout=10)
    found = await asyncio.gather(*(memory.search("colour", f"user {n}", limit=5) for n in range(10)))
    assert [[hit.memory.id for hit in hits] for hits in found] == [[record.id] for record in records]


@pytest.mark.promise(37, 38, 40)
async def test_one_client_serves_many_callers_over_few_connections(emulator: Emulator, path: Path) -> None:
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, width=6), retries=0) as memory:
        await asyncio.gather(*(memory.add(f"note {n}", user_id=f"user {n % 5}") for n in range(60)))
        await asyncio.gather(*(memory.search("note", f"user {n % 5}") for n in range(60)))
        assert emulator.counters.opened <= 6
        for _ in range(10):
            await memory.search("note", "user 1")
        assert emulator.counters.opened <= 6


@pytest.mark.promise(27, 28, 39)
async def test_leaving_closes_every_connection(emulator: Emulator, path: Path) -> None:
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path)) as memory:
        await memory.add("tea", user_id="ann")
        assert emulator.counters.open >= 1
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0)
    memory = AsyncMemory(Memsy(**emulator.provider_options(), path=path))
    await memory.add("tea", user_id="ann")
    await memory.close()
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0)
