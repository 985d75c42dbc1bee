"""Reading JSON Lines to import: what a line says, and the key that makes importing it twice the same as once.

A line with an `id` is an exported record. Its key is that id; what only a backend can set (the id, when it was made
and changed) is kept in the extension `x-imported`, and what it supersedes is linked once both records are stored. Any
other line is a plain memory, an object of `add`'s fields; its key is its content and its place in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, BinaryIO

from openproto import InvalidRequestError, MemoryInput

LONGEST = 32 * 2**20
"""Bytes in a line: content at its longest, every character escaped, and a great deal of extensions."""

IMPORTED = "x-imported"

_DERIVED = {"superseded_by", "embedding_model", "status"}
_LONGEST_KEY_ID = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One memory to import: its line, its id where it was exported, `add`'s keywords, and what it supersedes there."""

    number: int
    id: str | None
    item: dict[str, Any]
    supersedes: list[str]


@dataclass(slots=True)
class Survey:
    """What must be known of the whole file before the first line is stored."""

    lines: int = 0
    superseded: set[str] = field(default_factory=set)
    """Every id that some line supersedes: the only ids whose successors must be remembered."""
    superseding: set[str] = field(default_factory=set)
    """Every id that some line says it is superseded by."""


def check_format(file: BinaryIO) -> None:
    """Raise InvalidRequestError, once, for a file that as a whole is something else than lines of JSON in UTF-8."""
    file.seek(0)
    start = file.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start:
        raise InvalidRequestError(
            "the file is UTF-16, as shells of Windows write it, and must be UTF-8: save it anew, in PowerShell with "
            "`Out-File -Encoding utf8`"
        )
    file.seek(0)
    first = next((raw for _, raw in numbered(file)), None)
    file.seek(0)
    if first is not None and (first.lstrip(b"\xef\xbb\xbf \t").startswith(b"[") or _goes_on(first, file)):
        raise InvalidRequestError(
            "the file is one JSON document and must hold one object on each line; `jq -c '.[]' FILE` writes the items "
            "of a list so"
        )
    file.seek(0)


def survey(file: BinaryIO) -> Survey:
    """Read `file` once, from its start, and leave it there."""
    found = Survey()
    file.seek(0)
    for _, raw in numbered(file):
        found.lines += 1
        if raw and b'"supersede' in raw:
            with suppress(InvalidRequestError):
                fields = _object(raw)
                found.superseded.update(_ids(fields))
                if type(by := fields.get("superseded_by")) in (str, int):
                    found.superseding.add(str(by))
    file.seek(0)
    return found


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line that is not blank and its number; None stands for one that is too long to be held."""
    number = 0
    while raw := file.readline(LONGEST):
        number += 1
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif raw.strip():
            yield number, raw


def parse(number: int, raw: bytes | None, user: str | None) -> Line:
    """Return what a line says, for `user` whatever it says where one is given; InvalidRequestError says what is wrong.

    The message never repeats the line. The fields themselves are left to `add`, which knows their rules.
    """
    if raw is None:
        raise InvalidRequestError(f"is longer than {LONGEST} bytes")
    fields = _object(raw)
    supersedes = _ids(fields)
    id = fields.get("id")
    if type(id) is int:  # as databases number their rows
        id = str(id)
    if id is not None and not (isinstance(id, str) and id):
        raise InvalidRequestError("id: must be a text or a whole number")
    named = fields.get("user_id")
    if id is not None:
        fields = _split(fields)
        if user is not None and named not in (None, user):
            fields[IMPORTED]["user_id"] = named
    else:
        fields.pop("supersedes", None)
    if user is not None:
        fields["user_id"] = user
    key = fields.pop("idempotency_key", None) or _key(number, id, fields)
    return Line(number, id, {**fields, "idempotency_key": key}, supersedes)


def _split(record: dict[str, Any]) -> dict[str, Any]:
    """Part an exported record into `add`'s fields and `x-imported`, which holds everything else."""
    item: dict[str, Any] = {}
    original: dict[str, Any] = {}
    for name, value in record.items():
        if name == IMPORTED:
            original["earlier"] = value
        elif name == "supersedes" or not (name in MemoryInput.model_fields or name.startswith("x-")):
            original |= {} if name in _DERIVED else {name: value}
        else:
            item[name] = value
    return {**item, IMPORTED: original}


def _object(raw: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise InvalidRequestError("is not JSON, or not in UTF-8") from None
    if not isinstance(fields, dict):
        raise InvalidRequestError("is not a JSON object")
    return fields


def _goes_on(first: bytes, file: BinaryIO) -> bool:
    """Return whether the first line is no JSON and the file is; one that is larger than a line may be is not read."""
    try:
        with suppress(ValueError):
            json.loads(first)
            return False
        text = file.read(LONGEST)
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _ids(fields: dict[str, Any]) -> list[str]:
    ids = fields.get("supersedes") or []
    if not (isinstance(ids, list) and all(type(id) in (str, int) for id in ids)):
        raise InvalidRequestError("supersedes: must be a list of ids")
    return [str(id) for id in ids]


def _key(number: int, id: str | None, fields: dict[str, Any]) -> str:
    if id is None:
        return f"import:{number}:{_digest(json.dumps(fields, sort_keys=True))}"
    return f"import:{id}" if len(id) <= _LONGEST_KEY_ID else f"import:{_digest(id)}"


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
