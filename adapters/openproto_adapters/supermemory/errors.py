"""What an exception of Supermemory's SDK means in the protocol: by class, never by its words."""

from __future__ import annotations

from importlib import import_module
from typing import Any

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
from openproto.http_status import read_retry_after

_LONGEST_QUOTE = 200


def as_protocol_error(error: Exception, api_key: str) -> OpenProtoError:
    """Return the typed error; the vendor's own words stay in the cause, for they may repeat what was sent.

    But what it says of a quota is quoted, without the key: it tells what to buy or to wait for.
    """
    sdk: Any = import_module("supermemory")  # it does not declare its exceptions as exported
    from supermemory.errors import PaymentRequiredError

    match error:
        case sdk.APITimeoutError():
            return ProviderTimeoutError("Supermemory did not answer in time; a write may or may not have happened")
        case sdk.APIConnectionError():
            return ProviderUnavailableError("the connection to Supermemory failed; is base_url right, and the net up?")
        case sdk.AuthenticationError():
            return UnauthorizedError("Supermemory does not accept the API key; set api_key= or SUPERMEMORY_API_KEY")
        case PaymentRequiredError():
            return RateLimitedError(f"the quota of the Supermemory account is used up{_quoted(error.body, api_key)}")
        case sdk.PermissionDeniedError():
            return ScopeDeniedError("Supermemory does not allow this to the API key: it needs to write all namespaces")
        case sdk.NotFoundError():
            return NotFoundError("no such memory")
        case sdk.BadRequestError() | sdk.UnprocessableEntityError():
            return InvalidRequestError(f"Supermemory refuses the request with status {error.status_code}")
        case sdk.ConflictError():
            return ConflictError("the request contradicts what Supermemory is doing with this memory or namespace")
        case sdk.RateLimitError():
            return RateLimitedError(
                "Supermemory asks for fewer requests",
                retry_after=read_retry_after((error.headers or {}).get("retry-after", "")),
            )
        case sdk.APIStatusError(status_code=413):
            return PayloadTooLargeError("the request is larger than Supermemory takes")
        case sdk.APIStatusError(status_code=502 | 503 | 504 as status):
            return ProviderUnavailableError(f"Supermemory takes no work now: status {status}")
        case sdk.APIStatusError(status_code=200):
            return nonsense()
        case sdk.APIStatusError():
            return ProviderError(f"Supermemory failed with status {error.status_code}")
    # Answers of a wrong shape break the SDK's generated models in ways of their own.
    return ProviderError(f"Supermemory's SDK failed with {type(error).__name__}; is base_url that of Supermemory?")


def nonsense() -> ProviderError:
    """Return the error for an answer of another shape than Supermemory's."""
    return ProviderError("Supermemory's answer makes no sense; is base_url that of Supermemory?")


def _quoted(body: Any, api_key: str) -> str:
    said = body.get("error") if isinstance(body, dict) else None
    return f': "{said.replace(api_key, "***")[:_LONGEST_QUOTE]}"' if isinstance(said, str) else ""
