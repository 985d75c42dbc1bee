"""A memory to import: `add`'s keywords, and the key that makes importing it twice the same as once.

What has an `id` is known by it: its key is that id, what only a backend can set (the id, when it was made and changed)
is kept in the extension `x-imported`, and what it supersedes is linked once both records are stored. Anything else is
known by its content and its place in the file. A target that restores takes what `dated_line` makes of it instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, BinaryIO, TypeAlias

from openproto import InvalidRequestError
from openproto.portable.formats import Entry
from openproto.portable.formats.format import IMPORTED
from openproto.portable.formats.json_files import document, shape_of

UserAndId: TypeAlias = tuple[str | None, str]
"""Two users' records may have the same id."""

_LONGEST_KEY_ID = 200


@dataclass(frozen=True, slots=True)
class Line:
    """One memory to import: its place, its id where it came from, `add`'s keywords, and its links there."""

    number: int
    id: str | None
    item: dict[str, Any]
    supersedes: list[str]
    superseded_by: str | None
    has_key: bool
    """Whether it names its idempotency key itself."""

    def ref(self, id: str) -> UserAndId:
        """Return what another memory of the same user is known by."""
        return self.item.get("user_id"), id


@dataclass(slots=True)
class Survey:
    """What must be known of the whole file before the first line is stored."""

    lines: int = 0
    superseded: set[UserAndId] = field(default_factory=set)
    """Everything that some line supersedes: only their new ids must be remembered."""
    superseding: set[UserAndId] = field(default_factory=set)
    """Everything that some line says it is superseded by."""


def check_format(file: BinaryIO) -> None:
    """Raise InvalidRequestError, once, for a file that as a whole is something else than lines of JSON."""
    shape = shape_of(file)
    if shape == "list" or (shape == "document" and "content" not in document(file)):
        raise InvalidRequestError("the file is one JSON document and must hold one object on each line")
    file.seek(0)


def survey(entries: Iterable[Entry], user: str | None) -> Survey:
    """Read everything once."""
    found = Survey()
    for number, fields in entries:
        found.lines += 1
        if not isinstance(fields, InvalidRequestError) and (fields.get("supersedes") or fields.get("superseded_by")):
            with suppress(InvalidRequestError):
                line = parse(number, fields, user)
                found.superseded.update(line.ref(id) for id in line.supersedes)
                if line.superseded_by is not None:
                    found.superseding.add(line.ref(line.superseded_by))
    return found


def parse(number: int, fields: dict[str, Any], user: str | None) -> Line:
    """Return the memory that `fields` are, for `user` whatever they say where one is given.

    InvalidRequestError, which never repeats a value, for what it cannot be known or linked by. The fields themselves
    are left to `add`, which knows their rules.
    """
    fields = dict(fields)
    id = fields.pop("id", None)
    by = fields.pop("superseded_by", None)
    supersedes = _ids(fields.pop("supersedes", None))
    if type(id) is int:  # as databases number their rows
        id = str(id)
    if id is not None and not (isinstance(id, str) and id):
        raise InvalidRequestError("id: must be a text or a whole number")
    named = fields.get("user_id")
    if user is not None:
        if IMPORTED in fields and named not in (None, user):
            fields[IMPORTED] = {**fields[IMPORTED], "user_id": named}
        fields["user_id"] = user
    named_key = fields.pop("idempotency_key", None)
    key = named_key or _key(number, id, fields)
    superseded_by = str(by) if type(by) in (str, int) else None
    return Line(number, id, {**fields, "idempotency_key": key}, supersedes, superseded_by, bool(named_key))


def _ids(ids: Any) -> list[str]:
    ids = ids or []
    if not (isinstance(ids, list) and all(type(id) in (str, int) for id in ids)):
        raise InvalidRequestError("supersedes: must be a list of ids")
    return [str(id) for id in ids]


def _key(number: int, id: str | None, fields: dict[str, Any]) -> str:
    if id is None:
        return f"import:{number}:{_digest(json.dumps(fields, sort_keys=True))}"
    return f"import:{id}" if len(id) <= _LONGEST_KEY_ID else f"import:{_digest(id)}"


def _digest(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()
