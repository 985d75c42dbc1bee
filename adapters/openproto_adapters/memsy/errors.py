"""What an exception of Memsy's SDK means in the protocol: by class and status, never by its words.

The SDK lets through what its HTTP library raises when a connection breaks, and its 429 lacks the time to wait.
"""

from __future__ import annotations

from openproto.errors import OpenProtoError, ProviderError
from openproto.http_status import error_of, timed_out, unreachable

VENDOR = "Memsy"
_KEY = "api_key= or MEMSY_API_KEY"


def as_protocol_error(error: Exception) -> OpenProtoError:
    """Return the typed error; the vendor's own words stay in the cause, because they may repeat what was sent."""
    import httpx
    from memsy import exceptions as sdk

    match error:
        case sdk.MemsyConnectionError(__cause__=httpx.ReadTimeout() | httpx.WriteTimeout()):
            return timed_out(VENDOR)
        case sdk.MemsyConnectionError() | httpx.TransportError():
            return unreachable(VENDOR)
        case sdk.AuthenticationError():
            return error_of(401, vendor=VENDOR, key=_KEY)
        case sdk.RateLimitExceeded():
            return error_of(429, vendor=VENDOR, key=_KEY, retry_after=error.retry_after)
        case sdk.MemsyAPIError(status_code=status):
            # A 409 is a limit of seats or keys, and no conflict of memories.
            return error_of(403 if status == 409 else status, vendor=VENDOR, key=_KEY)
    return ProviderError(f"Memsy's SDK failed with {type(error).__name__}; is base_url that of Memsy?")
