"""Waiting for what a vendor does in its own time, such as indexing a memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0


async def look_until(
    is_done: Callable[[T], bool], look: Callable[[], Awaitable[T]], first: T, *, within: float = float("inf")
) -> T:
    """Return the first answer of `look` that is done, or the last one after `within` seconds; `first` is known."""
    deadline = time.monotonic() + within
    answer, pause = first, FIRST_PAUSE
    while not is_done(answer) and (left := deadline - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(1.6 * pause, LONGEST_PAUSE)
        answer = await look()
    return answer
