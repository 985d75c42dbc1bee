"""The opaque cursor of `list`: where the last page ended, and which listing it belongs to.

A cursor is the base64url of 8 bytes of microseconds, 8 bytes that fingerprint these, the id, the user, and the filters,
and the id. It grants nothing: every page is filtered by user anyway; the fingerprint only turns a foreign or a damaged
cursor into a clear error instead of a page from the wrong place.
"""

from __future__ import annotations

import base64
import binascii
import struct
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

from openproto.errors import InvalidRequestError
from openproto.requests import ListQuery

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_HEAD = struct.Struct(">q8s")


def encode_cursor(query: ListQuery, created_at: datetime, id: str) -> str:
    """Return the cursor for the page after the record `(created_at, id)`."""
    micros = (created_at - _EPOCH) // _MICROSECOND
    head = _HEAD.pack(micros, _fingerprint(query, micros, id))
    return base64.urlsafe_b64encode(head + id.encode()).rstrip(b"=").decode()


def decode_cursor(query: ListQuery) -> tuple[datetime, str] | None:
    """Return the `(created_at, id)` that `query.cursor` points after, or None without a cursor.

    Raises InvalidRequestError for a cursor that is malformed or was made for another listing.
    """
    if query.cursor is None:
        return None
    try:
        raw = base64.b64decode(query.cursor + "=" * (-len(query.cursor) % 4), altchars=b"-_", validate=True)
        micros, fingerprint = _HEAD.unpack_from(raw)
        position = (_EPOCH + micros * _MICROSECOND, raw[_HEAD.size :].decode())
        if not position[1] or "\0" in position[1]:
            raise ValueError("must be an id that a store has made")
    except (ValueError, binascii.Error, struct.error, OverflowError):
        raise InvalidRequestError("cursor: is malformed; pass a next_cursor exactly as it was returned") from None
    if fingerprint != _fingerprint(query, micros, position[1]):
        raise InvalidRequestError(
            "cursor: was damaged, or made for another user or other filters; start again without it"
        )
    return position


def _fingerprint(query: ListQuery, micros: int, id: str) -> bytes:
    what = (micros, id, query.user_id, query.scope, query.tags, query.since, query.until, query.as_of)
    return blake2b(repr(what).encode(), digest_size=8).digest()
