"""How long the event loop stood still, beside how long it does in the same calls without the provider.

All of it is told by a clock that stands still while the machine runs something else in this thread's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeAlias

from openproto import AsyncMemory, MemoryInput, MemoryRecord, Provider

Run: TypeAlias = Callable[[], Awaitable[Any]]

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


@contextlib.asynccontextmanager
async def control(content: str, number: int) -> AsyncIterator[Run]:
    """Yield what makes as many calls at once as those that are judged, on the same loop, and without the provider."""
    async with AsyncMemory(Nothing()) as client:
        yield lambda: asyncio.gather(*(client.add(content, user_id="nobody") for _ in range(number)))


async def longest_pause(run: Run) -> float:
    """Return for how many ms at most the loop stands still while something runs."""
    pauses = Pauses()
    with contextlib.suppress(TimeoutError):
        await run()
    return await pauses.longest()


async def stall_of(run: Run, without: Run) -> float:
    """Return for how many ms at least the loop stands still while something runs, however often that is tried.

    Of what is too long, the part that is there `without` the provider at that moment is left out; where it still is too
    long, it is run again.
    """
    best = float("inf")
    for attempt in range(ATTEMPTS):
        await asyncio.sleep(attempt * _REST)
        longest = await longest_pause(run)
        if longest >= STALL_MS:
            longest = max(0.0, longest - await longest_pause(without))
        best = min(best, longest)
        if best < STALL_MS:
            break
    return best
