"""What an exception of MemorySync's SDK means in the protocol."""

from __future__ import annotations

import math

import httpx
from memorysync import MemorySyncError, RateLimitError

from openproto.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)

TIMED_OUT = "MemorySync did not answer in time; a write may or may not have happened"


def as_protocol_error(error: Exception) -> OpenProtoError:
    """Return the typed error; MemorySync's own words stay in the cause, for they may repeat what was sent."""
    match error:
        case TimeoutError() | httpx.TimeoutException() | MemorySyncError(__cause__=httpx.TimeoutException()):
            return ProviderTimeoutError(TIMED_OUT)
        case httpx.HTTPError() | MemorySyncError(__cause__=httpx.HTTPError()):
            return ProviderUnavailableError("the connection to MemorySync failed; is base_url right, and the net up?")
        case RateLimitError(retry_after_seconds=seconds):
            # The SDK says 0 where it knows nothing: it reads the body alone, and never the Retry-After header.
            known = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0
            return RateLimitedError("MemorySync asks for fewer requests", retry_after=seconds if known else None)
        case MemorySyncError(status_code=int() as status) if status >= 400:
            return of_status(status)
    # Answers of another shape break the SDK's dataclasses in ways of their own: KeyError, TypeError, AttributeError.
    return nonsense()


def of_status(status: int) -> OpenProtoError:
    """Return the typed error for a status of 400 or more."""
    match status:
        case 401:
            return UnauthorizedError("MemorySync does not accept the API key; set api_key= or MEMORYSYNC_API_KEY")
        case 403:
            return ScopeDeniedError("MemorySync does not allow this to the API key")
        case 404:
            return NotFoundError("MemorySync has no such memory")
        case 409:
            return ConflictError("the request contradicts what MemorySync has; try again")
        case 413:
            return PayloadTooLargeError("the request is larger than MemorySync takes")
        case 400 | 422:
            return InvalidRequestError(f"MemorySync refuses the request with status {status}")
        case 429:
            return RateLimitedError("MemorySync asks for fewer requests")
        case 502 | 503 | 504:
            return ProviderUnavailableError(f"MemorySync takes no work now: status {status}")
    return ProviderError(f"MemorySync failed with status {status}")


def nonsense() -> ProviderError:
    """Return the error for an answer of another shape than MemorySync's."""
    return ProviderError("MemorySync's answer makes no sense; is base_url that of MemorySync?")


def closed() -> ProviderUnavailableError:
    """Return the error for a request that the closing of the client forestalls or ends."""
    return ProviderUnavailableError("the connections to MemorySync were closed; a write may or may not have happened")
