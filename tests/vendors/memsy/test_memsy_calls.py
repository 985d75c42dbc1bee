"""Many calls at once, on few connections, and what ends them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.memsy import Memsy
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import AsyncMemory, Memory, NotFoundError, RateLimitedError


async def test_waiting_for_the_processing_can_be_cancelled(emulator: Emulator, path: Path) -> None:
    emulator.lag = 60.0
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, wait=60.0)) as memory:
        adding = asyncio.create_task(memory.add("tea", user_id="ann"))
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.by_route["POST /v1/status"] >= 1)
        adding.cancel()
        done, _ = await asyncio.wait([adding], timeout=1.0)
        assert done == {adding}
        assert [one.content for one in (await memory.list("ann")).items] == ["tea"]


@pytest.mark.promise(37, 38, 40)
async def test_one_client_serves_many_callers_over_few_connections(emulator: Emulator, path: Path) -> None:
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path, width=6), retries=0) as memory:
        await asyncio.gather(*(memory.add(f"note {n}", user_id=f"user {n % 5}") for n in range(60)))
        await asyncio.gather(*(memory.search("note", f"user {n % 5}") for n in range(60)))
        assert emulator.counters.opened <= 6
        for _ in range(10):
            await memory.search("note", "user 1")
        assert emulator.counters.opened <= 6


@pytest.mark.promise(26, 35, 41)
async def test_the_sync_client_does_the_same_and_fails_the_same(
    memory: AsyncMemory, emulator: Emulator, path: Path
) -> None:
    def in_thread() -> Any:
        with Memory(Memsy(**emulator.provider_options(), path=path), retries=0) as sync:
            added = sync.add("tea", user_id="ann", tags=["x"])
            (done,) = sync.wait_for_ingest([added.id], "ann", timeout=10)
            hits = sync.search("tea", "ann")
            with pytest.raises(NotFoundError):
                sync.get("no-such-id")
            emulator.faults.next(Status(429), path="/v1/search")
            with pytest.raises(RateLimitedError):
                sync.search("tea", "ann")
            return done, hits

    done, hits = await asyncio.to_thread(in_thread)
    assert await memory.get(done.id) == done
    assert await memory.search("tea", "ann") == hits
