"""What an exception of MemorySync's SDK means in the protocol."""

from __future__ import annotations

import math

import httpx
from memorysync import MemorySyncError, RateLimitError

from openproto.errors import OpenProtoError, ProviderUnavailableError
from openproto.http_status import error_of, timed_out, unexpected_response, unreachable
from openproto_adapters.memorysync.ids import VENDOR


def as_protocol_error(error: Exception) -> OpenProtoError:
    """Return the typed error; MemorySync's own words stay in the cause, because they may repeat what was sent."""
    match error:
        case TimeoutError() | httpx.TimeoutException() | MemorySyncError(__cause__=httpx.TimeoutException()):
            return timed_out(VENDOR)
        case httpx.HTTPError() | MemorySyncError(__cause__=httpx.HTTPError()):
            return unreachable(VENDOR)
        case RateLimitError(retry_after_seconds=seconds):
            # The SDK says 0 where it knows nothing: it reads the body alone, and never the Retry-After header.
            known = isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0
            return of_status(429, retry_after=seconds if known else None)
        case MemorySyncError(status_code=int() as status) if status >= 400:
            return of_status(status)
    # Answers of another shape break the SDK's dataclasses in different ways: KeyError, TypeError, AttributeError.
    return unexpected_response(VENDOR)


def of_status(status: int, *, retry_after: float | None = None) -> OpenProtoError:
    """Return the typed error for a status of 400 or more."""
    return error_of(status, vendor=VENDOR, key="api_key= or MEMORYSYNC_API_KEY", retry_after=retry_after)


def closed() -> ProviderUnavailableError:
    """Return the error for a request that the closing of the client forestalls or ends."""
    return ProviderUnavailableError(
        "the connections to MemorySync were closed; a write may or may not have happened: look before trying again"
    )
