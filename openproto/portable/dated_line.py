"""A line that says when its memory was made, as the record that a target which restores can take.

What `export` wrote keeps its id. Another one, the same whenever the line is read, takes its place where that is not
possible: it is another program's, or another user's record has it in the same file, or `--user` names another user.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from pydantic import ValidationError

from openproto import AsyncMemory, InvalidRequestError, MemoryRecord, ScopeDeniedError, UnsupportedCapabilityError
from openproto.portable.formats import Entry
from openproto.portable.formats.format import IMPORTED
from openproto.portable.package import explain
from openproto.portable.record_line import Line, UserAndId

_NAMES = UUID("5f0c8c5e-3a3b-5a53-9d0e-7d7a6c1f8e21")
"""The namespace of the ids that are made here; another one would make another id of the same line."""

_MADE = ("created_at", "updated_at")
_RENEWED = {*_MADE, "version", "user_id"}
"""What `x-imported` keeps of an exported record that is added anew, and a restored one has itself."""
_OF_ITS_ID = {"id", "supersedes"}


class Written(NamedTuple):
    """A record that is in the target now, and whether it was not there before."""

    record: MemoryRecord
    is_new: bool


class DatedLines:
    """Makes records of the lines of a file; `exported` where `export` wrote it."""

    def __init__(self, entries: Iterable[Entry], user: str | None, *, exported: bool) -> None:
        self._exported = exported
        self._taken = _taken_twice(entries) if exported and user is None else frozenset()

    def is_dated(self, line: Line) -> bool:
        """Say whether the line holds a record that can be written as it was."""
        if line.has_key or (self._exported and line.id is None):
            return False
        return self._made(line) is not None

    async def write(
        self, memory: AsyncMemory, lines: Mapping[int, Line]
    ) -> dict[int, Written | InvalidRequestError] | None:
        """Restore the records of dated lines, and return what became of each; None where the target restores none."""
        found: dict[int, Written | InvalidRequestError] = {}
        records: dict[int, MemoryRecord] = {}
        for place, line in lines.items():
            try:
                records[place] = self.record(line)
            except InvalidRequestError as error:
                found[place] = error
        try:
            outcomes = await memory.restore(records.values())
        except (ScopeDeniedError, UnsupportedCapabilityError):  # a server restores for keys of all users only
            return None
        for (place, record), outcome in zip(records.items(), outcomes, strict=True):
            if outcome.error is None:
                found[place] = Written(record, outcome.outcome == "restored")
            else:
                found[place] = InvalidRequestError(outcome.error)
        return found

    def record(self, line: Line) -> MemoryRecord:
        """Return the record of a dated line; InvalidRequestError, which repeats no value, where it is none."""
        fields = {name: value for name, value in line.item.items() if name not in ("idempotency_key", IMPORTED)}
        imported = line.item[IMPORTED]
        fields["id"] = self._id(line, line.id)
        fields["created_at"] = self._made(line)
        fields["supersedes"] = [self._id(line, id) for id in line.supersedes]
        if line.superseded_by is not None:
            fields["superseded_by"] = self._id(line, line.superseded_by)
        if self._exported:
            fields["updated_at"] = imported.get("updated_at")
            imported = self._kept(line, imported, has_its_id=fields["id"] == line.id)
        if imported is not None:
            fields[IMPORTED] = imported
        try:
            return MemoryRecord.model_validate(fields)
        except ValidationError as error:
            raise InvalidRequestError(explain(error)) from None

    def _made(self, line: Line) -> Any:
        imported = line.item.get(IMPORTED)
        made = imported.get("created_at") if isinstance(imported, dict) else None
        if self._exported:
            return made
        if isinstance(made, int | float):  # seconds, as ChatGPT counts them
            with suppress(ValueError, OverflowError, OSError):
                return datetime.fromtimestamp(made, UTC)
            return None
        with suppress(ValidationError):  # a date without an offset is no moment, and stays in the extension alone
            return MemoryRecord.model_validate({"id": "", "content": "", "user_id": "", "created_at": made}).created_at
        return None

    def _id(self, line: Line, id: str | None) -> str:
        user = line.item.get("user_id")
        named = line.item[IMPORTED].get("user_id", user)
        old = _canonical(id)
        if self._exported and id is not None and old and named == user and (user, id) not in self._taken:
            return id
        known_by = line.item["idempotency_key"] if id is None else id
        made = str(uuid5(_NAMES, json.dumps([user, named, known_by])))
        if old is not None and old.version == 8:  # what it says of the moment in which it was made stays
            return f"{str(old)[:13]}-8{made[15:]}"
        return made

    def _kept(self, line: Line, imported: dict[str, Any], *, has_its_id: bool) -> Any:
        """Return what `x-imported` says of an exported record: what it said before, and what else has no place."""
        dropped = _RENEWED | _OF_ITS_ID if has_its_id else _RENEWED
        kept = {name: value for name, value in imported.items() if name not in dropped}
        if not has_its_id and "user_id" in imported:
            kept["user_id"] = imported["user_id"]
        return kept["earlier"] if kept.keys() == {"earlier"} else kept or None


def _taken_twice(entries: Iterable[Entry]) -> frozenset[UserAndId]:
    """Return the ids that a record of another user had before in the file, each with its user."""
    first: dict[str, Any] = {}
    taken: set[UserAndId] = set()
    for _, fields in entries:
        if not isinstance(fields, InvalidRequestError) and isinstance(id := fields.get("id"), str):
            user = fields.get("user_id")
            if isinstance(user, str) and first.setdefault(id, user) != user:
                taken.add((user, id))
    return frozenset(taken)


def _canonical(id: str | None) -> UUID | None:
    """Return the UUID that the id is, spelled as stores spell it."""
    with suppress(ValueError):
        if id is not None and str(found := UUID(id)) == id:
            return found
    return None
