"""What an exception of Letta's SDK means in the protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openproto.errors import OpenProtoError, ProviderUnavailableError
from openproto.http_status import error_of, read_retry_after, timed_out, unexpected_response, unreachable

if TYPE_CHECKING:
    from letta_client import APIError

VENDOR = "Letta"


def as_protocol_error(error: APIError) -> OpenProtoError:
    """Return the typed error; Letta's own words stay in the cause, because they may repeat what was sent."""
    import letta_client as sdk

    match error:
        case sdk.APITimeoutError():
            return timed_out(VENDOR)
        case sdk.APIConnectionError():
            # Also what the call after a 500 meets: a self-hosted server then closes the connection without a word.
            return unreachable(VENDOR)
        case sdk.APIStatusError(status_code=status) if status >= 500:
            return ProviderUnavailableError(
                f"Letta failed with status {status}; where it persists, ask its embedding provider first"
            )
        case sdk.APIStatusError():
            retry_after = read_retry_after(error.response.headers.get("retry-after", ""))
            return error_of(error.status_code, vendor=VENDOR, key="api_key= or LETTA_API_KEY", retry_after=retry_after)
    return unexpected_response(VENDOR)
