"""Memory ids that say where their memory is: whose archive, and at which microsecond.

Letta has no way to fetch a passage by its id, but it finds the few of one moment at once. An id is the user's token (22
characters) followed by the base64 of the moment (8 bytes) and a tail: 7 bytes of a hash of the idempotency key, or, of
a passage that another program wrote, the 16 bytes of its own UUID.
"""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple
from uuid import UUID

from openproto.emulation import user_token

MICROSECOND = timedelta(microseconds=1)

_FIRST = datetime(1, 1, 1, tzinfo=UTC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOKEN = 22
_ID = re.compile(r"[A-Za-z0-9_-]{42}|[A-Za-z0-9_-]{54}")


class Place(NamedTuple):
    """Where a memory is."""

    token: str
    moment: datetime


class Clock:
    """The moments at which one client's memories are created: no two are the same, and each is later than the last."""

    def __init__(self) -> None:
        self._last = 0

    def tick(self) -> int:
        """Return the moment in microseconds of Unix time."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last


def moment(micros: int) -> datetime:
    """Return a moment of the clock as a datetime."""
    return _EPOCH + micros * MICROSECOND


def own_id(user_id: str, key: str, created_at: datetime) -> str:
    """Return the id of a memory added under `key`: the same whenever the same attempt is repeated."""
    return _id(user_token(user_id), created_at, blake2b(key.encode(), digest_size=7).digest())


def foreign_id(token: str, created_at: datetime, passage_id: str) -> str:
    """Return the id of a passage that another program wrote."""
    return _id(token, created_at, UUID(passage_id.removeprefix("passage-")).bytes)


def place_of(id: str) -> Place | None:
    """Return where the memory of that id is, or None: an id that was never made here."""
    if not _ID.fullmatch(id):
        return None
    micros = int.from_bytes(urlsafe_b64decode(id[_TOKEN:])[:8])
    try:
        return Place(id[:_TOKEN], _FIRST + micros * MICROSECOND)
    except OverflowError:
        return None


def _id(token: str, created_at: datetime, tail: bytes) -> str:
    micros = (created_at - _FIRST) // MICROSECOND
    return token + urlsafe_b64encode(micros.to_bytes(8) + tail).decode()
