"""A call of a hosted vendor that is cancelled, or whose client is closed, frees its thread and its connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hosted import Hosted
from openproto_conformance.emulators import Hang

from openproto import AsyncMemory, ProviderUnavailableError

WIDTH = 4


@pytest.fixture
async def narrow(hosted: Hosted, emulator: Any, tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with hosted.client(emulator, tmp_path, timeout=None, **{hosted.width: WIDTH}) as client:
        await client.add("first", user_id="ann")
        yield client


@pytest.mark.promise(14, 85)
async def test_cancelled_calls_hold_nothing(hosted: Hosted, narrow: AsyncMemory, emulator: Any) -> None:
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


async def test_closing_ends_what_hangs_and_frees_everything(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
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
