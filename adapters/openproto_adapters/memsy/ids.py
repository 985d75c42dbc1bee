"""What a record's id says: its user, its idempotency key, and its event.

Each part is a word that Memsy accepts as an id in searches, which refuse what is not of `[A-Za-z0-9_\\-:.@/]`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Self

from openproto.emulation import TOKEN, OwnedId, user_token

_EVENT = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class EventId(OwnedId):
    """Where a memory is at Memsy: its actor is the user's token, its session stands for the idempotency key.

    A session for each memory, because Memsy takes equal texts within a minute in one session for one event: equal
    memories stay apart, and one that is sent again under its key is the same event.
    """

    pattern: ClassVar[re.Pattern[str]] = re.compile(
        TOKEN + rf"\.(?P<session>[A-Za-z0-9_-]{{22}})\.(?P<event>{_EVENT.pattern})"
    )

    session: str
    event: str = ""

    @classmethod
    def of_key(cls, user_id: str, key: str) -> Self:
        """Return where the user's memory of that key is; which event it is Memsy says."""
        return cls(user_token(user_id), user_token(key))


def is_event(id: object) -> bool:
    """Return whether that can be the id of an event."""
    return isinstance(id, str) and _EVENT.fullmatch(id) is not None
