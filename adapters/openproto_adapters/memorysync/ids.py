"""Memory ids that say with which end user a memory is, at which row, and by what name it is found when it has moved.

An id is the user's token (22 characters), MemorySync's number of the memory as it was first written, and a name, which
is a hash of the idempotency key. The number makes reading one request. A memory whose content was changed has another
number since: then it is looked up by its name. End users stand in headers and paths, and are tokens for that reason:
nothing in a user id can escape from either, and a key of MemorySync's own rule is kept, too: no e-mail addresses there.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

from openproto.emulation import TOKEN, OwnedId, user_token

VENDOR = "MemorySync"


@dataclass(frozen=True, slots=True)
class RowId(OwnedId):
    """Whose memory it is, MemorySync's number of its first row, and its name."""

    pattern: ClassVar[re.Pattern[str]] = re.compile(
        TOKEN + r"\.(?P<number>[1-9][0-9]{0,17})\.(?P<name>[A-Za-z0-9_-]{16})"
    )

    number: str
    name: str

    @property
    def first(self) -> int:
        """MemorySync's number of the memory as it was first written."""
        return int(self.number)

    @property
    def id(self) -> str:
        """The id of the memory."""
        return f"{self.token}.{self.number}.{self.name}"


def end_user(token: str) -> str:
    """Return the end user who has a user's memories and nothing else."""
    return f"openproto-{token}"


def name_of(user_id: str, key: str) -> str:
    """Return the name of what the user adds under this idempotency key."""
    digest = blake2b(f"{user_token(user_id)}.{key}".encode(), digest_size=12).digest()
    return urlsafe_b64encode(digest).decode()
