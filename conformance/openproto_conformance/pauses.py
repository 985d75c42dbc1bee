"""How long the event loop stood still, beside how long the machine alone made anybody stand still meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

STALL_MS = 20.0
"""PROTOCOL 4.6: the longest stall while slow calls are in flight."""

ATTEMPTS = 6
"""A provider that blocks does so every time; a busy machine does not."""

_SCRIPT = """
import select, sys, time
longest = 0.0
while True:
    before = time.perf_counter()
    asked = select.select([sys.stdin], [], [], 0.001)[0]
    longest = max(longest, time.perf_counter() - before)
    if asked:
        if not sys.stdin.readline():
            break
        print(longest * 1000, flush=True)
        longest = 0.0
"""


class Control:
    """A process beside this one that does nothing but wait for a millisecond again and again, and notes the longest."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with a fixed script
            [sys.executable, "-ISc", _SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.longest()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def longest(self) -> float:
        """Return the longest wait since the last question, in ms."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the control was not started")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


class Pauses:
    """Measures how long the loop did not come round."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._task = asyncio.ensure_future(self._watch())

    async def longest(self) -> float:
        """Return the longest pause so far, in ms, and stop watching."""
        await asyncio.sleep(0)
        self._task.cancel()
        await asyncio.wait({self._task})
        return self._longest

    async def _watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            self._longest = max(self._longest, (time.perf_counter() - before) * 1000)


def excuses(control_ms: float, took_ms: float, bound_ms: float) -> bool:
    """Whether the machine alone explains that something took longer than its bound."""
    return took_ms - control_ms < bound_ms / 2


async def stall_of(run: Callable[[], Awaitable[object]], control: Control) -> tuple[float, bool]:
    """Run something a few times; return its shortest longest pause in ms, and whether it stayed within the bound.

    It is run again only where a pause was too long and the control, which ran at the same time, had no such pause.
    """
    best = float("inf")
    for _ in range(ATTEMPTS):
        pauses = Pauses()
        control.longest()
        with contextlib.suppress(TimeoutError):
            await run()
        longest = await pauses.longest()
        best = min(best, longest)
        if longest < STALL_MS or excuses(control.longest(), longest, STALL_MS):
            return best, True
    return best, False
