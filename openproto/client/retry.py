"""Repeating calls that are safe to repeat (PROTOCOL §4.7): reads, and writes under an idempotency key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform
from typing import TypeVar

from openproto.errors import OpenProtoError

T = TypeVar("T")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0


class Retries:
    """Decides whether a call that failed is repeated, at most `most` times, and waits before it is.

    The wait grows exponentially with full jitter, and is never shorter than the backend's own `retry_after`. The
    caller's deadline bounds the whole.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._longest = FIRST_WAIT
        self.done = 0

    async def wait_after(self, error: OpenProtoError) -> None:
        """Wait before the next attempt; raise the error where none may follow it."""
        if self.done == self._most or not error.retryable:
            raise error
        wait = max(uniform(0, self._longest), error.retry_after or 0.0)  # noqa: S311  # jitter need not be secret
        await asyncio.sleep(wait)
        self.done += 1
        self._longest = min(2 * self._longest, LONGEST_WAIT)


async def with_retries(call: Callable[[], Awaitable[T]], retries: int, repeated: Callable[[], None]) -> T:
    """Return `await call()`, repeated after errors that say they are retryable; `repeated` is called before each."""
    left = Retries(retries)
    while True:
        try:
            return await call()
        except OpenProtoError as error:
            await left.wait_after(error)
        repeated()
