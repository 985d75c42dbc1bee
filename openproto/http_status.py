"""What HTTP says of a failure: the typed error of a status, and how long to wait (RFC 9110)."""

from __future__ import annotations

import math

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


def error_of(status: int, *, vendor: str, key: str, retry_after: float | None = None) -> OpenProtoError:
    """Return the typed error for a vendor's answer with `status`; `key` says where its API key is set.

    The vendor's own words are left out, because they may repeat what was sent.
    """
    match status:
        case 401:
            return UnauthorizedError(f"{vendor} does not accept the API key; set {key}")
        case 402:
            return RateLimitedError(f"the quota of the {vendor} account is used up; raise it, or wait")
        case 403:
            return ScopeDeniedError(f"{vendor} does not allow this to the API key; use one with more rights")
        case 404:
            return NotFoundError(f"{vendor} has no such memory")
        case 409:
            return ConflictError(f"the request contradicts what {vendor} has or is doing; try again")
        case 413:
            return PayloadTooLargeError(f"the request is larger than {vendor} takes; send less at a time")
        case 400 | 422:
            return InvalidRequestError(f"{vendor} refuses the request with status {status}; look at its values")
        case 429:
            return RateLimitedError(f"{vendor} asks for fewer requests; try again later", retry_after=retry_after)
        case 502 | 503 | 504:
            return ProviderUnavailableError(
                f"{vendor} takes no work now (status {status}); try again soon", retry_after=retry_after
            )
    if 200 <= status < 300:
        return unexpected_response(vendor)
    return ProviderError(f"{vendor} failed with status {status}; try again, or ask {vendor}")


def unreachable(vendor: str) -> ProviderUnavailableError:
    """Return the error for a connection that was not made or broke."""
    return ProviderUnavailableError(
        f"the connection to {vendor} failed; is base_url right, and the network up? "
        "A write may or may not have happened: look before trying again"
    )


def timed_out(vendor: str) -> ProviderTimeoutError:
    """Return the error for an answer that did not come in time."""
    return ProviderTimeoutError(
        f"{vendor} did not answer in time; a write may or may not have happened: look before trying again"
    )


def unexpected_response(vendor: str) -> ProviderError:
    """Return the error for an answer of another shape than the vendor's."""
    return ProviderError(f"unexpected response from {vendor}; is base_url that of {vendor}?")


def read_retry_after(header: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, itself seconds or a date (RFC 9110, 10.2.3), or None."""
    # Imported here: `import openproto` should not pay for what only a refusal needs.
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
