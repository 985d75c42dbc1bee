"""How late an event loop is for a task that wants to run all the time."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Self

TICK = 0.001


class Ticker:
    """A task that wants to run every millisecond; `longest` is how late the loop let it run at worst."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(5 * TICK)
        self.longest = 0.0
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.sleep(2 * TICK)  # so that a stall at the very end is seen
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        due = time.perf_counter() + TICK
        while True:
            await asyncio.sleep(TICK)
            now = time.perf_counter()
            self.longest = max(self.longest, now - due)
            due = now + TICK


async def beside_computing(seconds: float) -> float:
    """Return how late an empty loop is at worst while one other thread computes: what any work off the loop costs it.

    The interpreter takes itself away from the thread only after `sys.getswitchinterval()`, so that this is never zero,
    and what else the machine does strikes it like what is measured next to it.
    """
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(1_000))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        async with Ticker() as ticker:
            await asyncio.sleep(seconds)
    finally:
        ended.set()
        thread.join()
    return ticker.longest
