"""Cancelling a call to a hosted vendor that does not answer: when the caller has it back, and when the vendor knows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import httpx
from openproto_conformance.emulators import Emulator, Hang
from openproto_conformance.emulators.registry import emulator_class

from benchmarks.harness import Bench, Figure, Seconds, next_to, not_run, p90
from openproto import AsyncMemory

VENDORS = ("memorysync",)
MOST = 1.5

Search = Callable[[], Coroutine[Any, Any, object]]


async def run(bench: Bench) -> list[Figure]:
    """Measure every vendor whose SDK is installed."""
    return [figure for name in VENDORS for figure in await _measured(name, bench.size(200, 40))]


@dataclass
class Side:
    """One way to ask, and what its cancellations took: until the caller had it back, and until the server knew."""

    search: Search
    awaiter: Seconds = field(default_factory=list)
    seen: Seconds = field(default_factory=list)


async def _measured(name: str, rounds: int) -> list[Figure]:
    try:
        with emulator_class(name)() as emulator:
            async with (
                AsyncMemory(name, retries=0, **emulator.provider_options()) as memory,
                httpx.AsyncClient(base_url=emulator.url) as bare,
            ):
                await memory.search("tea", "ann")
                ours = Side(lambda: memory.search("tea", "ann"))
                theirs = Side(lambda: bare.get("/"))
                with emulator.faults.always(Hang()):
                    for turn in range(rounds):
                        for side in (ours, theirs) if turn % 2 else (theirs, ours):
                            await _cancel(side, emulator)
                await memory.search("tea", "ann")
    except ImportError as error:
        return [not_run(f"{name}: a cancelled search", str(error))]
    return [
        next_to(f"{name}: {what} after a search was cancelled, {said} / bare httpx", point, took, control, MOST)
        for what, took, control in (
            ("CancelledError", ours.awaiter, theirs.awaiter),
            ("the server sees that the client has left", ours.seen, theirs.seen),
        )
        for said, point in (("p50", median), ("p90", p90))
    ]


async def _cancel(side: Side, emulator: Emulator) -> None:
    before = emulator.counters.disconnects
    task = asyncio.ensure_future(side.search())
    await asyncio.to_thread(emulator.counters.wait_for, lambda counted: counted.in_flight == 1)
    started = time.perf_counter()
    task.cancel()
    await asyncio.wait({task})
    side.awaiter.append(time.perf_counter() - started)
    await asyncio.to_thread(emulator.counters.wait_for, lambda counted: counted.disconnects == before + 1)
    side.seen.append(time.perf_counter() - started)
