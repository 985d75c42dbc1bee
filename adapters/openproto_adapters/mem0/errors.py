"""From the exceptions of mem0, and of what is beneath it, to the protocol's: by class, never by their words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from openproto.emulation import no_such_memory
from openproto.errors import InvalidRequestError, OpenProtoError, ProviderError, ProviderUnavailableError
from openproto.http_status import error_of, unexpected_response

_UNREACHABLE = (
    ("httpx", "TransportError"),
    ("psycopg", "OperationalError"),
    ("psycopg_pool", "PoolTimeout"),
    ("qdrant_client.http.exceptions", "ResponseHandlingException"),
    ("sqlalchemy.exc", "OperationalError"),
)
"""What stores raise when they cannot be reached; a module that was not imported has raised nothing."""


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn what a call of mem0 raises into typed errors."""
    try:
        yield
    except (OpenProtoError, ImportError):  # a store's own package is missing, and mem0 says which
        raise
    except Exception as error:
        raise typed_error(error) from error


def typed_error(error: Exception) -> OpenProtoError:
    """Return the protocol's error for mem0's; without mem0's words, which may repeat a memory or a password."""
    from mem0 import exceptions as theirs

    if isinstance(error, theirs.AuthenticationError):
        return _of_status(403 if error.error_code == "HTTP_403" else 401)
    if isinstance(error, theirs.MemoryNotFoundError):
        return no_such_memory()
    if isinstance(error, theirs.RateLimitError):
        after = error.debug_info.get("retry_after")
        return _of_status(429, retry_after=float(after) if after is not None else None)
    if isinstance(error, theirs.MemoryQuotaExceededError):
        return _of_status(402)
    if isinstance(error, theirs.ValidationError):
        return InvalidRequestError(f"mem0 does not take this request ({error.error_code})")
    if isinstance(error, theirs.NetworkError) or _is_unreachable(error):
        return ProviderUnavailableError(
            f"mem0, or the store beneath it, cannot be reached ({type(error).__name__}); start it"
        )
    if isinstance(error, theirs.MemoryError):
        return ProviderError(f"mem0 failed ({error.error_code}); try again")
    if isinstance(error, json.JSONDecodeError):
        return unexpected_response("mem0")
    return ProviderError(f"mem0, or the store beneath it, failed with {type(error).__name__}; look at its log")


def connecting_error(error: Exception) -> OpenProtoError:
    """Return the error for a client that cannot be made: its first request fails with a bare ValueError."""
    import httpx

    if isinstance(status := error.__context__, httpx.HTTPStatusError):
        code = status.response.status_code
        return _of_status(503 if code >= 500 else code)
    return typed_error(error)


def _of_status(status: int, *, retry_after: float | None = None) -> OpenProtoError:
    return error_of(status, vendor="mem0", key="api_key= or MEM0_API_KEY", retry_after=retry_after)


def _is_unreachable(error: Exception) -> bool:
    known: list[Any] = [getattr(sys.modules.get(module), name, ()) for module, name in _UNREACHABLE]
    return isinstance(error, (OSError, *known))
