"""Ids that begin with their user's token, so that an id alone says where its memory is and whose it is."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import ClassVar, Self
from uuid import UUID

TOKEN = r"(?P<token>[A-Za-z0-9_-]{22})"  # noqa: S105 - a pattern of names, no secret


def user_token(user_id: str) -> str:
    """Return 22 characters of `[A-Za-z0-9_-]` that stand for a user wherever a vendor restricts what a name may be.

    A hash of 128 bits: nothing in a user id can escape from a path or a header, and no two users share a token.
    """
    return urlsafe_b64encode(blake2b(user_id.encode(), digest_size=16).digest()).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class OwnedId:
    """The parts of an id; a subclass adds its fields, and a pattern whose named groups fill all of them."""

    pattern: ClassVar[re.Pattern[str]] = re.compile(TOKEN)
    separator: ClassVar[str] = "."

    token: str

    @classmethod
    def read(cls, id: str, user_id: str | None = None) -> Self | None:
        """Return the parts of `id`; None where it was never made here, or belongs to another user than the given."""
        match = cls.pattern.fullmatch(id)
        if match is None or (user_id is not None and match["token"] != user_token(user_id)):
            return None
        return cls(**match.groupdict())

    @property
    def id(self) -> str:
        """The id that has these parts."""
        return self.separator.join(astuple(self))

    @classmethod
    def of(cls, id: str) -> Self:
        """Return the parts of an id that is known to have been made here."""
        parts = cls.read(id)
        if parts is None:
            raise ValueError("must be an id that this provider has made")
        return parts


def is_uuid(id: str) -> bool:
    """Return whether an id is a UUID as vendors write it: stores fail in different ways for anything else."""
    try:
        return str(UUID(id)) == id
    except ValueError:
        return False
