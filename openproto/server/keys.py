"""API keys: how one is made, kept, and recognised.

A key is 256 random bits, so one SHA-256 of it is all that needs keeping: there is nothing to guess, and a stolen file
of hashes opens nothing. Each is bound to the user ids that it may act for, or to all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, TypeAdapter, ValidationError

from openproto.fields import Label, UserId

PREFIX = "op_"
EVERYONE: Literal["*"] = "*"


class ApiKey(BaseModel):
    """A key as the server keeps it: a name for people, the hash, and the users it may act for (`"*"`: all)."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Label
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    users: list[UserId] | Literal["*"]


ApiKeys = TypeAdapter(list[ApiKey])


def new_key(name: str, users: list[str]) -> tuple[str, ApiKey]:
    """Return a new key, which is shown once and kept nowhere, and its entry for the server's file of keys."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, ApiKey(name=name, sha256=_hash(key.encode()), users=EVERYONE if users == [EVERYONE] else users)


def read_keys(path: Path) -> list[ApiKey]:
    """Return the keys of a JSON file; ValueError says what is wrong with it and repeats none of it."""
    try:
        keys = ApiKeys.validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise ValueError(f"{path} is no list of keys: {where}{': ' if where else ''}{fault['msg']}") from None
    if not keys:
        raise ValueError(f"{path} holds no keys; without any the server would ask for none")
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
