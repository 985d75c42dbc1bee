"""What an exception of Supermemory's SDK means in the protocol: by class, never by its words."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from openproto.errors import OpenProtoError, ProviderError, RateLimitedError
from openproto.http_status import error_of, read_retry_after, timed_out, unreachable

VENDOR = "Supermemory"

_LONGEST_QUOTE = 200


def as_protocol_error(error: Exception, api_key: str) -> OpenProtoError:
    """Return the typed error; only words about a quota are quoted, because others may repeat what was sent."""
    sdk: Any = import_module("supermemory")  # it does not declare its exceptions as exported
    match error:
        case sdk.APITimeoutError():
            return timed_out(VENDOR)
        case sdk.APIConnectionError():
            return unreachable(VENDOR)
        case sdk.APIStatusError(status_code=402):
            return RateLimitedError(
                f"the quota of the Supermemory account is used up; raise it, or wait{_quoted(error.body, api_key)}"
            )
        case sdk.APIStatusError(status_code=status):
            retry_after = read_retry_after((error.headers or {}).get("retry-after", ""))
            return error_of(status, vendor=VENDOR, key="api_key= or SUPERMEMORY_API_KEY", retry_after=retry_after)
    # Answers of a wrong shape break the SDK's generated models in different ways.
    return ProviderError(f"Supermemory's SDK failed with {type(error).__name__}; is base_url that of Supermemory?")


def _quoted(body: Any, api_key: str) -> str:
    said = body.get("error") if isinstance(body, dict) else None
    return f': "{said.replace(api_key, "***")[:_LONGEST_QUOTE]}"' if isinstance(said, str) else ""
