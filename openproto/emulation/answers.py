"""What a vendor answers, read with suspicion, and the errors that several adapters raise in the same words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, TypeVar

from pydantic import TypeAdapter

from openproto.errors import ConflictError, NotFoundError, OpenProtoError, ProviderError
from openproto.http_status import unexpected_response

T = TypeVar("T")

_building = Lock()
_readers: dict[Any, TypeAdapter[Any]] = {}


@contextmanager
def reading(vendor: str) -> Iterator[None]:
    """Raise ProviderError where what is read in here is not of the expected shape.

    For pydantic's models as for the attributes and keys of an SDK's own objects. The original error is not chained:
    a model's error repeats its input, which is memory content.
    """
    try:
        yield
    except OpenProtoError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError):
        raise unexpected_response(vendor) from None


def reader(kind: type[T]) -> TypeAdapter[T]:
    """Return what reads an answer as `kind`: made when it is first wanted, in a thread; it takes milliseconds."""
    with _building:
        if kind not in _readers:
            _readers[kind] = TypeAdapter(kind)
        made: TypeAdapter[T] = _readers[kind]
    return made


def no_such_memory() -> NotFoundError:
    """Return the error for an id that the user has no memory of."""
    return NotFoundError("no such memory")


class DeletedSinceError(ConflictError):
    """A ConflictError of an idempotency key whose memory is gone: a restored memory then gets another key."""


def deleted_since() -> DeletedSinceError:
    """Return the error for an idempotency key whose memory is gone and must not come back."""
    return DeletedSinceError("idempotency_key: belongs to a memory that was deleted since; use a new key")


def another_users(vendor: str) -> ProviderError:
    """Return the error for an answer that holds another user's memory."""
    return ProviderError(f"{vendor} answered with another user's memory, which was dropped; report it")


def stale_version() -> ConflictError:
    """Return the error for a change of a record that has changed since the caller read it."""
    return ConflictError("if_version: the record is not of that version (any more); read it again before changing it")


def damaged(how: str = "is not what was written") -> ProviderError:
    """Return the error for a memory whose metadata another program has changed or broken."""
    return ProviderError(f"a stored memory is damaged: its metadata {how}; add it anew")
