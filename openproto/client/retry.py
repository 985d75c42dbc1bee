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


async def with_retries(call: Callable[[], Awaitable[T]], retries: int, repeated: Callable[[], None]) -> T:
    """Return `await call()`, repeated at most `retries` times after errors that say they are retryable.

    The wait grows exponentially with full jitter, and is never shorter than the backend's own `retry_after`. The
    caller's deadline bounds the whole; `repeated` is called before each repetition.
    """
    longest = FIRST_WAIT
    while True:
        try:
            return await call()
        except OpenProtoError as error:
            if not (retries and error.retryable):
                raise
            wait = max(uniform(0, longest), error.retry_after or 0.0)  # noqa: S311  # jitter need not be secret
        await asyncio.sleep(wait)
        retries, longest = retries - 1, min(2 * longest, LONGEST_WAIT)
        repeated()
