"""Cancelling a call to a hosted vendor that does not answer: when the caller has it back, and when the vendor knows."""

from __future__ import annotations

import asyncio
import time
from statistics import median

from openproto_conformance.emulators import Emulator, Hang
from openproto_conformance.emulators.registry import emulator_class

from benchmarks.harness import Bench, Figure, at_most, not_run, spread
from openproto import AsyncMemory

VENDORS = ("memorysync",)
MOST_AWAITER_MS, MOST_AWAITER_P50_MS, MOST_SEEN_MS = 50, 5, 500


async def run(bench: Bench) -> list[Figure]:
    """Measure every vendor whose SDK is installed."""
    return [figure for name in VENDORS for figure in await _measured(name, bench.size(200, 40))]


async def _measured(name: str, rounds: int) -> list[Figure]:
    awaiter: list[float] = []
    seen: list[float] = []
    try:
        with emulator_class(name)() as emulator:
            async with AsyncMemory(name, retries=0, **emulator.provider_options()) as memory:
                await memory.search("tea", "ann")
                with emulator.faults.always(Hang()):
                    for number in range(1, rounds + 1):
                        await _cancel(memory, emulator, number, awaiter, seen)
                await memory.search("tea", "ann")
    except ImportError as error:
        return [not_run(f"{name}: a cancelled search", str(error))]
    told = {"awaiter_ms": spread(awaiter, 1e3), "disconnect_ms": spread(seen, 1e3), "rounds": rounds}
    what = f"{name}: CancelledError after a search was cancelled"
    return [
        at_most(f"{what}, p50", median(awaiter) * 1e3, MOST_AWAITER_P50_MS, "ms", **told),
        at_most(f"{what}, worst", max(awaiter) * 1e3, MOST_AWAITER_MS, "ms"),
        at_most(f"{name}: the server sees that the client has left, worst", max(seen) * 1e3, MOST_SEEN_MS, "ms"),
    ]


async def _cancel(
    memory: AsyncMemory, emulator: Emulator, number: int, awaiter: list[float], seen: list[float]
) -> None:
    task = asyncio.ensure_future(memory.search("tea", "ann"))
    await asyncio.to_thread(emulator.counters.wait_for, lambda counted: counted.in_flight == 1)
    started = time.perf_counter()
    task.cancel()
    await asyncio.wait({task})
    awaiter.append(time.perf_counter() - started)
    await asyncio.to_thread(emulator.counters.wait_for, lambda counted: counted.disconnects == number)
    seen.append(time.perf_counter() - started)
