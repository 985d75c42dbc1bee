"""A cancelled call of the supermemory provider frees its thread at once, and leaves whole memories behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from cancelled_updates import check_that_updates_are_whole
from openproto_adapters.supermemory import Supermemory
from openproto_conformance.emulators import Hang, Latency
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import AsyncMemory, ProviderUnavailableError

WIDTH = 4
WITHIN = 0.5
"""Seconds: PROTOCOL 4.4, for calls whose sockets are cut."""


@pytest.fixture
async def narrow(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """An open client with few threads."""
    async with AsyncMemory(Supermemory(**emulator.provider_options(), width=WIDTH), retries=0, timeout=None) as client:
        await client.add("first", user_id="ada")
        yield client


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("openproto-supermemory")]


async def test_a_hundred_cancelled_calls_hold_no_thread(narrow: AsyncMemory, emulator: Emulator) -> None:
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(narrow.add(f"note {n}", user_id="ada")) for n in range(50)]
        calls += [asyncio.create_task(narrow.search("tea", "ada")) for n in range(50)]
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == WIDTH)
        assert len(threads()) == WIDTH
        started = time.monotonic()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert time.monotonic() - started < WITHIN
        assert all(call.cancelled() for call in calls)
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == 0, WITHIN)
    started = time.monotonic()
    assert [record.content for record in (await narrow.list("ada")).items] == ["first"]
    assert time.monotonic() - started < 1.0
    assert len(threads()) <= WIDTH


async def test_an_add_that_was_cancelled_on_its_way_back_is_whole_and_its_repeat_finds_it(
    narrow: AsyncMemory, emulator: Emulator
) -> None:
    emulator.faults.next(Latency(5.0), path="*/document")
    adding = asyncio.create_task(narrow.add("tea", user_id="ada", idempotency_key="key-1"))
    await asyncio.to_thread(
        emulator.counters.wait_for, lambda seen: seen.by_route["POST /ns/{namespace}/document"] == 2
    )
    adding.cancel()
    await asyncio.wait([adding])
    await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.disconnects == 1)
    record = await narrow.add("tea", user_id="ada", idempotency_key="key-1")
    assert [found.content async for found in narrow.iter("ada")] == ["tea", "first"]
    assert (await narrow.get(record.id)).content == "tea"


async def test_an_update_that_is_cancelled_at_any_moment_leaves_the_memory_old_or_new(
    narrow: AsyncMemory, emulator: Emulator
) -> None:
    await check_that_updates_are_whole(narrow, "ada", updates=24)


async def test_waiting_to_be_indexed_can_be_cancelled(emulator: Emulator) -> None:
    emulator.lag = 60.0
    async with AsyncMemory(Supermemory(**emulator.provider_options(), wait="indexed")) as memory:
        adding = asyncio.create_task(memory.add("tea", user_id="ada"))
        await asyncio.to_thread(
            emulator.counters.wait_for, lambda seen: seen.by_route["GET /ns/{namespace}/document/{id}"] > 1
        )
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert [record.content for record in (await memory.list("ada")).items] == ["tea"]


async def test_a_client_that_is_closed_while_calls_hang_frees_everything(emulator: Emulator) -> None:
    client = AsyncMemory(Supermemory(**emulator.provider_options(), width=WIDTH), close_timeout=1.0, timeout=None)
    await client.add("first", user_id="ada")
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(client.search("tea", "ada")) for _ in range(WIDTH)]
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == WIDTH)
        await client.aclose()
        await asyncio.wait(calls)
        assert {type(call.exception()) for call in calls} == {ProviderUnavailableError}
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0, WITHIN)
