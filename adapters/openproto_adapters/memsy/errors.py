"""What an exception of Memsy's SDK means in the protocol: by class and status, never by its words.

The SDK lets pass what its HTTP library raises when a connection breaks, and whatever its own reading of an unexpected
answer ends in. Its 429 says neither when to come back nor whether a quota is used up.
"""

from __future__ import annotations

from openproto.errors import (
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

_UNREACHABLE = "the connection to Memsy failed; is base_url right, and the net up? A write may or may not have happened"


def as_protocol_error(error: Exception) -> OpenProtoError:
    """Return the typed error; the vendor's own words stay in the cause, for they may repeat what was sent."""
    import httpx
    from memsy import exceptions as sdk

    match error:
        case sdk.MemsyConnectionError(__cause__=httpx.ReadTimeout() | httpx.WriteTimeout()):
            return ProviderTimeoutError("Memsy did not answer in time; a write may or may not have happened")
        case sdk.MemsyConnectionError() | httpx.TransportError():
            return ProviderUnavailableError(_UNREACHABLE)
        case sdk.AuthenticationError():
            return UnauthorizedError("Memsy does not accept the API key; set api_key= or MEMSY_API_KEY")
        case sdk.RateLimitExceeded():
            return RateLimitedError("Memsy asks for fewer requests", retry_after=error.retry_after)
        case sdk.MemsyAPIError():
            return _of_status(error.status_code)
    return ProviderError(f"Memsy's SDK failed with {type(error).__name__}; is base_url that of Memsy?")


def nonsense() -> ProviderError:
    """Return the error for an answer of another shape than Memsy's."""
    return ProviderError("Memsy's answer makes no sense; is base_url that of Memsy?")


def _of_status(status: int) -> OpenProtoError:
    match status:
        case 400 | 422:
            return InvalidRequestError(f"Memsy refuses the request with status {status}")
        case 402 | 429:
            return RateLimitedError("Memsy asks for fewer requests, or the quota of the plan is used up")
        case 403 | 409:
            return ScopeDeniedError("the API key's scope, seat, or plan does not include this at Memsy")
        case 404:
            return NotFoundError("Memsy knows no such thing; is base_url right? It ends with /v1")
        case 413:
            return PayloadTooLargeError("the request is larger than Memsy takes")
        case 502 | 503 | 504:
            return ProviderUnavailableError(f"Memsy takes no work now: status {status}")
    return ProviderError(f"Memsy failed with status {status}")
