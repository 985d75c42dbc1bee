"""A cancelled call of a hosted vendor frees its thread and its connection, and leaves whole memories behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hosted import Hosted
from openproto_conformance.emulators import Hang, Latency

from openproto import AsyncMemory, ProviderUnavailableError

WIDTH = 4


@pytest.fixture
async def narrow(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    """An open client with few threads or connections, and a memory."""
    async with hosted.client(emulator, tmp_path, timeout=None, **{hosted.width: WIDTH}) as client:
        await client.add("first", user_id="ann")
        yield client


@pytest.mark.promise(14)
@pytest.mark.promise(85)
async def test_a_hundred_cancelled_calls_hold_no_thread_and_no_connection(
    hosted: Hosted, narrow: AsyncMemory, emulator: Any
) -> None:
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(narrow.add(f"note {n}", user_id="ann")) for n in range(50)]
        calls += [asyncio.create_task(narrow.search("tea", "ann")) for n in range(50)]
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == WIDTH)
        for call in calls:
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=5.0)
        assert not pending
        assert all(call.cancelled() for call in calls)
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == 0)
    assert [record.content for record in (await narrow.list("ann")).items] == ["first"]
    assert emulator.counters.max_in_flight == WIDTH
    names = [thread.name for thread in threading.enumerate()]
    assert sum(name.startswith(f"openproto-{hosted.name}") for name in names) <= WIDTH


async def test_an_add_that_was_cancelled_on_its_way_back_is_whole_and_its_repeat_finds_it(
    hosted: Hosted, narrow: AsyncMemory, emulator: Any
) -> None:
    counters = emulator.counters
    emulator.faults.next(Latency(30.0), method="POST", path=emulator.add_path)
    before = counters.by_route[hosted.adds]
    adding = asyncio.create_task(narrow.add("tea", user_id="ann", idempotency_key="key-1"))
    while counters.by_route[hosted.adds] == before:
        await asyncio.sleep(0)
    adding.cancel()
    await asyncio.wait([adding])
    await asyncio.to_thread(counters.wait_for, lambda seen: seen.disconnects == 1)
    record = await narrow.add("tea", user_id="ann", idempotency_key="key-1")
    assert [found.content async for found in narrow.iter("ann")] == ["tea", "first"]
    assert (await narrow.get(record.id)).content == "tea"


async def test_an_update_that_is_cancelled_at_any_moment_leaves_the_memory_old_or_new(narrow: AsyncMemory) -> None:
    record = await narrow.add("state 0", user_id="ann", tags=["0"])
    now = 0
    for n in range(1, 25):
        updating = asyncio.create_task(narrow.update(record.id, content=f"state {n}", tags=[str(n)]))
        await asyncio.sleep(n * 0.001)  # each is struck a millisecond later than the one before
        updating.cancel()
        await asyncio.wait([updating])
        read = await narrow.get(record.id)
        seen = int(read.content.removeprefix("state "))
        assert read.tags == [str(seen)]
        assert now <= seen <= n, "an update that a cancelled one had overtaken"
        now = seen
    assert (await narrow.update(record.id, content="last")).content == "last"
    assert sorted([found.content async for found in narrow.iter("ann")]) == ["first", "last"]


async def test_a_client_that_is_closed_while_calls_hang_ends_them_and_frees_everything(
    hosted: Hosted, emulator: Any, tmp_path: Path
) -> None:
    client = hosted.client(emulator, tmp_path, close_timeout=0.5, timeout=None, **{hosted.width: WIDTH})
    await client.add("first", user_id="ann")
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(client.search("tea", "ann")) for _ in range(WIDTH)]
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == WIDTH)
        await client.aclose()
        await asyncio.wait(calls)
        assert {type(call.exception()) for call in calls} == {ProviderUnavailableError}
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0)


@pytest.mark.promise(39)
async def test_leaving_closes_every_connection(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    async with hosted.client(emulator, tmp_path) as memory:
        await memory.add("tea", user_id="ann")
        assert emulator.counters.open >= 1
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0)
