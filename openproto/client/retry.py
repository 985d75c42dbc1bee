"""Repeating calls that are safe to repeat (PROTOCOL §4.7): reads, and writes under an idempotency key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from openproto.errors import OpenProtoError

T = TypeVar("T")

FIRST_WAIT = 0.1
LONGEST_WAIT = 5.0


async def with_retries(call: Callable[[], Awaitable[T]], retries: int, repeated: Callable[[], None]) -> T:
    """Return `await call()`, repeated at most `retries` times after errors that say they are retryable.

    The wait grows exponentially with full jitter, and is never shorter than the backend's own `retry_after`. The
    caller's deadline bounds the whole; `repeated` is told of each repetition.
    """
    try:
        return await call()
    except OpenProtoError as error:
        if not (retries and error.retryable):
            raise
        first = error
    # Imported here: most calls succeed at once, and `import openproto` should not pay for the others.
    from tenacity import (
        AsyncRetrying,
        RetryCallState,
        retry_if_exception,
        stop_after_attempt,
        wait_random_exponential,
    )

    backoff = wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, OpenProtoError) else None
        return max(backoff(state), asked or 0.0)

    failed = [first]

    async def attempt() -> T:
        if failed:
            raise failed.pop()
        repeated()
        return await call()

    retrying = AsyncRetrying(
        stop=stop_after_attempt(retries + 1),
        wait=wait,
        retry=retry_if_exception(lambda error: isinstance(error, OpenProtoError) and error.retryable),
        reraise=True,
    )
    return await retrying(attempt)
