"""Where a memory is: with which end user, under which id, and by what name it is found when it has moved.

An id is the user's token (22 characters), MemorySync's number of the memory as it was first written, and a name, which
is a hash of the idempotency key. The number makes reading one request. A memory whose content was changed has another
number since: then it is looked up by its name. End users stand in headers and paths, and are tokens for that reason:
nothing in a user id can escape from either, and a key of MemorySync's own rule is kept, too: no e-mail addresses there.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import NamedTuple

from openproto.emulation import user_token

_ID = re.compile(r"([A-Za-z0-9_-]{22})\.([1-9][0-9]{0,17})\.([A-Za-z0-9_-]{16})")


class Place(NamedTuple):
    """Whose memory it is, MemorySync's number of its first version, and its name."""

    token: str
    first: int
    name: str

    @classmethod
    def of_id(cls, id: str) -> Place | None:
        """Return where the memory of that id is, or None: an id that was never made here."""
        match = _ID.fullmatch(id)
        return cls(match[1], int(match[2]), match[3]) if match else None

    @property
    def id(self) -> str:
        """The id of the memory."""
        return f"{self.token}.{self.first}.{self.name}"


def end_user(token: str) -> str:
    """Return the end user who has a user's memories and nothing else."""
    return f"openproto-{token}"


def name_of(user_id: str, key: str) -> str:
    """Return the name of what the user adds under this idempotency key."""
    digest = blake2b(f"{user_token(user_id)}.{key}".encode(), digest_size=12).digest()
    return urlsafe_b64encode(digest).decode()
