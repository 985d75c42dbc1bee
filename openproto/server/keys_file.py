"""Changing the file of keys, and counting what its keys are used for in a file next to it.

Each change happens under a lock and replaces the whole file at once, so that a running server and another
`openproto keys` see either the old keys or the new ones.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import ClassVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from openproto.server.keys import ApiKey, ApiKeys, read_keys

_PRIVATE = 0o600


class Usage(BaseModel):
    """How often a key was used, and when last."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    count: int
    last: AwareDatetime


_Usages = TypeAdapter(dict[str, Usage])


@contextmanager
def edited_keys(path: Path) -> Iterator[list[ApiKey]]:
    """Lock the file and give its keys, to be changed in place; written when the block ends without an exception.

    A file that is not there yet is made. ValueError where it is not a list of keys.
    """
    path = path.resolve()
    with _locked(path):
        keys = read_keys(path) if path.exists() else []
        before = list(keys)
        yield keys
        if keys != before or not path.exists():
            _replace(path, ApiKeys.dump_json(keys, indent=2) + b"\n")


def read_usage(path: Path) -> dict[str, Usage]:
    """Return how the keys of a file have been used, by their SHA-256; none where nothing was counted."""
    try:
        return _Usages.validate_json(_usage_path(path).read_bytes())
    except (OSError, ValidationError):
        return {}


def add_usage(path: Path, used: Mapping[str, tuple[int, datetime]]) -> None:
    """Add what a worker has counted."""
    path = path.resolve()
    with _locked(_usage_path(path)):
        usage = read_usage(path)
        for sha256, (count, last) in used.items():
            before = usage.get(sha256)
            usage[sha256] = Usage(
                count=count + (before.count if before else 0), last=max(last, before.last) if before else last
            )
        known = {key.sha256 for key in read_keys(path)}
        kept = {sha256: each.model_dump(mode="json") for sha256, each in usage.items() if sha256 in known}
        _replace(_usage_path(path), json.dumps(kept, indent=2).encode() + b"\n")


def _usage_path(path: Path) -> Path:
    return path.with_name(path.name + ".usage")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _PRIVATE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PRIVATE)
    try:
        os.fchmod(file, _PRIVATE)
        with suppress(OSError):  # the server may run as another user, who must be able to go on reading
            owner = path.stat()
            os.fchown(file, owner.st_uid, owner.st_gid)
        with os.fdopen(file, "wb", closefd=False) as sink:
            sink.write(data)
            sink.flush()
            os.fsync(file)
    finally:
        os.close(file)
    new.replace(path)
