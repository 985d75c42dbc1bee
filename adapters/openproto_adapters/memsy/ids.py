"""What a record's id says: whose it is, under which key it was added, and which event it was.

Each part is a word that Memsy takes wherever it takes an id: searches refuse what is not of `[A-Za-z0-9_\\-:.@/]`.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from openproto.emulation import user_token

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_EVENT = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Place(NamedTuple):
    """Where a memory is at Memsy: its actor stands for the user, its session for the idempotency key.

    A session for each memory, because Memsy takes equal texts within a minute in one session for one event: equal
    memories stay apart, and one that is sent again under its key is the same event.
    """

    actor: str
    session: str
    event: str = ""

    @classmethod
    def of_key(cls, user_id: str, key: str) -> Place:
        """Return where the user's memory of that key is; which event it is Memsy says."""
        return cls(user_token(user_id), user_token(key))

    @classmethod
    def of_id(cls, id: str) -> Place | None:
        """Return the place that an id names; None for an id that was not made here."""
        actor, _, rest = id.partition(".")
        session, _, event = rest.partition(".")
        if _TOKEN.fullmatch(actor) and _TOKEN.fullmatch(session) and is_event(event):
            return cls(actor, session, event)
        return None

    @property
    def id(self) -> str:
        """The record's id."""
        return f"{self.actor}.{self.session}.{self.event}"


def is_event(id: object) -> bool:
    """Return whether that can be the id of an event."""
    return isinstance(id, str) and _EVENT.fullmatch(id) is not None
