"""Memory ids that name the end user, the row, and what a memory is looked up by once it has moved.

An id is the user's token, the number of the memory's first row, and a name, which is a hash of the idempotency key. The
number makes reading one request; after its content was changed, a memory has another number and is found by its name.
End users stand in headers and paths, and may not be e-mail addresses: hence the tokens.
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


def end_user(token: str) -> str:
    """Return the end user who has a user's memories and nothing else."""
    return f"openproto-{token}"


def name_of(user_id: str, key: str) -> str:
    """Return the name of what the user adds under this idempotency key."""
    digest = blake2b(f"{user_token(user_id)}.{key}".encode(), digest_size=12).digest()
    return urlsafe_b64encode(digest).decode()
