"""API keys: how one is made, stored, and recognised.

A key is 256 random bits, so its SHA-256 is all that is stored: there is nothing to guess, and a stolen file of hashes
opens nothing. Each key is bound to the user ids that it may act for, or to all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from openproto.fields import Label, Moment, UserId, is_absent

PREFIX = "op_"
EVERYONE: Literal["*"] = "*"


class ApiKey(BaseModel):
    """A key as the server stores it: a name for people, the hash, and the users it may act for (`"*"`: all)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Label
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    users: list[UserId] | Literal["*"]
    expires: Moment | None = Field(default=None, exclude_if=is_absent)
    read_only: bool = Field(default=False, exclude_if=lambda value: value is False)

    @property
    def has_expired(self) -> bool:
        """Whether the key opens nothing any more."""
        return self.expires is not None and self.expires <= datetime.now(UTC)


ApiKeys = TypeAdapter(list[ApiKey])


def new_key(
    name: str, users: list[str], *, expires: datetime | None = None, read_only: bool = False
) -> tuple[str, ApiKey]:
    """Return a new key, which is shown once and stored nowhere, and its entry for the file of keys."""
    key = PREFIX + secrets.token_urlsafe(32)
    whose: list[str] | Literal["*"] = EVERYONE if users == [EVERYONE] else users
    entry = ApiKey(name=name, sha256=_hash(key.encode()), users=whose, expires=expires, read_only=read_only)
    return key, entry


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a JSON file; ValueError says what is wrong with it and repeats none of it."""
    try:
        keys = ApiKeys.validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(error.errno, f"{error.strerror}; `openproto keys add` makes it", str(path)) from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{path} is not a list of keys: {where}{': ' if where else ''}{fault['msg']}") from None
    return keys


def find_key(keys: Iterable[ApiKey], presented: bytes) -> ApiKey | None:
    """Return the entry of the presented key; takes as long for a wrong key as for a right one."""
    digest = _hash(presented)
    found = None
    for key in keys:
        if hmac.compare_digest(key.sha256, digest):
            found = key
    return found


def _hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()
