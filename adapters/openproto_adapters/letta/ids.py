"""Memory ids that say where their memory is, because Letta finds passages by their moment and never by their id.

An id is the user's token, the base64 of the moment (8 bytes), and either 7 bytes of a hash of the idempotency key or,
for a passage that another program wrote, the 16 bytes of its UUID.
"""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import ClassVar, Self
from uuid import UUID

from openproto.emulation import TOKEN, OwnedId, user_token
from openproto.stores.moments import MICROSECOND

_FIRST = datetime(1, 1, 1, tzinfo=UTC)


class Clock:
    """The moments at which one client's memories are created: no two are the same, and each is later than the last."""

    def __init__(self) -> None:
        self._last = 0

    def tick(self) -> int:
        """Return the moment in microseconds of Unix time."""
        self._last = max(self._last + 1, time.time_ns() // 1000)
        return self._last


@dataclass(frozen=True, slots=True)
class PassageId(OwnedId):
    """Whose archive a memory is in, and, in base64, its moment and what distinguishes it from others of that moment."""

    pattern: ClassVar[re.Pattern[str]] = re.compile(TOKEN + r"(?P<rest>[A-Za-z0-9_-]{20}|[A-Za-z0-9_-]{32})")

    separator: ClassVar[str] = ""

    rest: str

    @classmethod
    def of_key(cls, user_id: str, key: str, created_at: datetime) -> Self:
        """Return the id of a memory added under `key`: the same whenever the same attempt is repeated."""
        return cls._at(user_token(user_id), created_at, blake2b(key.encode(), digest_size=7).digest())

    @classmethod
    def of_foreign(cls, token: str, created_at: datetime, passage_id: str) -> Self:
        """Return the id of a passage that another program wrote."""
        return cls._at(token, created_at, UUID(passage_id.removeprefix("passage-")).bytes)

    @property
    def moment(self) -> datetime | None:
        """When the memory was created; None where the id names a later moment than there is."""
        micros = int.from_bytes(urlsafe_b64decode(self.rest)[:8])
        try:
            return _FIRST + micros * MICROSECOND
        except OverflowError:
            return None

    @classmethod
    def _at(cls, token: str, created_at: datetime, tail: bytes) -> Self:
        micros = (created_at - _FIRST) // MICROSECOND
        return cls(token, urlsafe_b64encode(micros.to_bytes(8) + tail).decode())
