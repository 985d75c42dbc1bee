"""A cancelled call of the letta provider frees its thread at once, and leaves whole memories behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
from cancelled_updates import check_that_updates_are_whole
from openproto_adapters.letta import Letta
from openproto_conformance.emulators import Hang, Latency
from openproto_conformance.emulators.letta import Letta as Emulator

from openproto import AsyncMemory

WIDTH = 4
WITHIN = 0.5
"""Seconds: PROTOCOL 4.4, for calls whose sockets are cut."""


@pytest.fixture
async def narrow(emulator: Emulator) -> AsyncIterator[AsyncMemory]:
    """An open client with few threads."""
    async with AsyncMemory(Letta(**emulator.provider_options(), width=WIDTH), retries=0, timeout=None) as client:
        await client.add("first", user_id="ann")
        yield client


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("openproto-letta")]


@pytest.mark.promise(85)
async def test_a_hundred_cancelled_calls_hold_no_thread(narrow: AsyncMemory, emulator: Emulator) -> None:
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(narrow.add(f"note {n}", user_id="ann")) for n in range(50)]
        calls += [asyncio.create_task(narrow.search("tea", "ann")) for n in range(50)]
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
    assert [record.content for record in (await narrow.list("ann")).items] == ["first"]
    assert time.monotonic() - started < 1.0
    assert len(threads()) <= WIDTH


async def test_an_add_that_was_cancelled_on_its_way_back_is_whole_and_its_repeat_finds_it(
    narrow: AsyncMemory, emulator: Emulator
) -> None:
    emulator.faults.next(Latency(5.0), path="*/passages")
    emulator.faults.next(Latency(5.0), path="*/passages")
    for _ in range(2):  # the key, and then the memory: each has reached the server when its client leaves
        before = emulator.counters.disconnects
        adding = asyncio.create_task(narrow.add("tea", user_id="ann", idempotency_key="key-1"))
        await asyncio.to_thread(
            emulator.counters.wait_for, lambda seen: seen.by_route["POST /v1/archives/{archive_id}/passages"] > 1
        )
        await asyncio.sleep(0.1)
        adding.cancel()
        await asyncio.wait([adding])
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen, n=before: seen.disconnects > n)
    record = await narrow.add("tea", user_id="ann", idempotency_key="key-1")
    assert [found.content async for found in narrow.iter("ann")] == ["tea", "first"]
    assert await narrow.get(record.id) == record


async def test_an_update_that_is_cancelled_at_any_moment_leaves_the_memory_old_or_new(
    narrow: AsyncMemory, emulator: Emulator
) -> None:
    await check_that_updates_are_whole(narrow, "ann", updates=24)
    (archive,) = emulator.archives.values()
    assert sorted(passage.text for passage in archive.passages.values()) == ["first", "last"]


async def test_a_client_that_is_closed_while_calls_hang_frees_everything(emulator: Emulator) -> None:
    client = AsyncMemory(Letta(**emulator.provider_options(), width=WIDTH), close_timeout=1.0, timeout=None)
    await client.add("first", user_id="ann")
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(client.search("tea", "ann")) for _ in range(WIDTH)]
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == WIDTH)
        await client.aclose()
        await asyncio.wait(calls)
        assert {type(call.exception()).__name__ for call in calls} == {"ProviderUnavailableError"}
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0, WITHIN)
