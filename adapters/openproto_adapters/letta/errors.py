"""What an exception of Letta's SDK means in the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from letta_client import APIError


def as_protocol_error(error: APIError) -> OpenProtoError:
    """Return the typed error; Letta's own words stay in the cause, for they may repeat what was sent."""
    import letta_client as sdk

    match error:
        case sdk.APITimeoutError():
            return ProviderTimeoutError("Letta did not answer in time; a write may or may not have happened")
        case sdk.APIConnectionError():
            # Also what the call after a 500 meets: a self-hosted server then closes the connection without a word.
            return ProviderUnavailableError("the connection to Letta failed; is base_url right, and the server up?")
        case sdk.AuthenticationError():
            return UnauthorizedError("Letta does not accept the API key; set api_key= or LETTA_API_KEY")
        case sdk.PermissionDeniedError():
            return ScopeDeniedError("Letta does not allow this to the API key")
        case sdk.NotFoundError():
            return NotFoundError("Letta has no such archive or passage")
        case sdk.BadRequestError() | sdk.UnprocessableEntityError():
            return InvalidRequestError(f"Letta refuses the request with status {error.status_code}")
        case sdk.ConflictError():
            return ConflictError("the request contradicts what Letta has; try again")
        case sdk.RateLimitError():
            return RateLimitedError(
                "Letta asks for fewer requests",
                retry_after=read_retry_after(error.response.headers.get("retry-after", "")),
            )
        case sdk.InternalServerError():
            return ProviderUnavailableError(
                f"Letta failed with status {error.status_code}; where it persists, ask its embedding provider first"
            )
        case sdk.APIStatusError(status_code=413):
            return PayloadTooLargeError("the request is larger than Letta takes")
        case sdk.APIStatusError():
            return ProviderError(f"Letta answered with status {error.status_code}")
    return ProviderError("Letta's answer makes no sense; is base_url that of a Letta server?")
