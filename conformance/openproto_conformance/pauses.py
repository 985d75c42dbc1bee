"""How long the event loop stood still, beside how long it does in the same calls without the provider.

All of it is told by a clock that stands still while the machine runs something else in this thread's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from openproto import AsyncMemory, MemoryInput, MemoryRecord, Provider

STALL_MS = 20.0
"""PROTOCOL 4.6: the longest stall while slow calls are in flight."""

ATTEMPTS = 12
"""A provider that blocks does so every time; a busy machine does not."""

_REST = 0.02
"""Seconds by which each attempt waits longer than the one before it: what keeps the machine busy may pass."""

_SCHEDULER = "/proc/thread-self/schedstat"


class ThreadClock:
    """Tells the seconds in which the thread that entered it could run, where the system says for how long it could not.

    Linux keeps account of how long a thread waited for a processor. Elsewhere this is the clock on the wall.
    """

    def __enter__(self) -> Self:
        self._account: int | None = None
        with contextlib.suppress(OSError):
            self._account = os.open(_SCHEDULER, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        account, self._account = self._account, None
        if account is not None:
            os.close(account)

    def now(self) -> float:
        """Return the seconds since some moment."""
        if self._account is None:
            return time.perf_counter()
        _, waited, _ = os.pread(self._account, 100, 0).split()
        return time.perf_counter() - int(waited) / 1e9


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
        with ThreadClock() as clock:
            while True:
                before = clock.now()
                await asyncio.sleep(0.001)
                self._longest = max(self._longest, (clock.now() - before) * 1000)


class Nothing(Provider):
    """Answers an `add` at once: what is left of a call is the client's part of it."""

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Return a record that is stored nowhere."""
        return MemoryRecord(id="-", content=item.content, user_id=item.user_id, created_at=datetime.now(UTC))


class Control:
    """Many calls at once that no backend answers, on the same loop and at the same moment as those that are judged."""

    def __init__(self, content: str, number: int) -> None:
        self._client = AsyncMemory(Nothing())
        self._content = content
        self._number = number

    async def run(self) -> None:
        """Make the calls."""
        await asyncio.gather(*(self._client.add(self._content, user_id="nobody") for _ in range(self._number)))

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


async def longest_pause(run: Callable[[], Awaitable[Any]]) -> float:
    """Return for how many ms at most the loop stands still while something runs."""
    pauses = Pauses()
    with contextlib.suppress(TimeoutError):
        await run()
    return await pauses.longest()


async def stall_of(run: Callable[[], Awaitable[Any]], control: Control) -> float:
    """Return for how many ms at least the loop stands still while something runs, however often that is tried.

    Of what is too long, the control's part at that moment is left out, and it is run again where it still is.
    """
    best = float("inf")
    for attempt in range(ATTEMPTS):
        await asyncio.sleep(attempt * _REST)
        longest = await longest_pause(run)
        if longest >= STALL_MS:
            longest = max(0.0, longest - await longest_pause(control.run))
        best = min(best, longest)
        if best < STALL_MS:
            break
    return best
