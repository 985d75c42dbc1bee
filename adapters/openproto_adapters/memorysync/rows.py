"""A memory as MemorySync's rows: reworded facts, and in the metadata of each the memory as it was given.

MemorySync may store one text as several rows, and a change of content makes new ones: until the old rows are gone both
are there, and readers take the newest version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from openproto.emulation import Stored, another_users, scope_nodes, user_token
from openproto.models import MemoryRecord
from openproto.requests import SearchQuery
from openproto_adapters.memorysync.ids import VENDOR, RowId

_ENVELOPE, _TEXT, _NAME = "openproto", "openproto_text", "openproto_name"
_ID, _ROWS, _REPLACED = "openproto_id", "openproto_rows", "openproto_replaced"

_OURS = "openproto:"
"""What the tags begin with that are not the user's."""


class Row(NamedTuple):
    """A row of MemorySync's; `score` is what a search found it worth."""

    id: int
    metadata: Mapping[str, Any]
    score: float = 0.0


class Version(NamedTuple):
    """A memory as one or more rows have it; `is_replaced`: there may be newer rows that were not looked at."""

    stored: Stored
    is_replaced: bool
    score: float


def newest(rows: Iterable[Row], token: str) -> dict[str, Version]:
    """Return the newest version of each memory by its name; rows of other programs are passed over."""
    found: dict[str, Version] = {}
    merge_newest(found, rows, token)
    return found


def merge_newest(found: dict[str, Version], rows: Iterable[Row], token: str) -> None:
    """Put what is newer among the rows in the place of what was found before."""
    for row in rows:
        if _ENVELOPE not in row.metadata:
            continue
        version, name = _version(row, token), str(row.metadata.get(_NAME))
        other = found.get(name, version)
        latest = max(other, version, key=_written)
        found[name] = latest._replace(score=max(other.score, version.score))


def numbers_of(stored: Stored) -> list[int]:
    """Return the numbers of the rows that a memory read or written here consists of."""
    return [int(number) for number in stored.handle.split()]


def handle_of(ids: Iterable[int]) -> str:
    """Return the handle of a memory that consists of these rows."""
    return " ".join(map(str, ids))


def metadata_of(stored: Stored, name: str, *, is_replaced: bool = False) -> dict[str, Any]:
    """Return the metadata of a memory's rows: scalars, and always the same keys, should an edit merge them."""
    return {
        _ENVELOPE: stored.to_text(),
        _TEXT: stored.record.content,
        _NAME: name,
        # Both are empty in rows that have just been made, for MemorySync numbers them; such a row is the whole memory.
        _ID: stored.record.id,
        _ROWS: stored.handle,
        _REPLACED: is_replaced,
    }


def tags_of(record: MemoryRecord, name: str) -> list[str]:
    """Return the user's tags, and ours: the memory's name, and every scope that it is in."""
    scopes = (_scope_tag(node) for node in scope_nodes(record.scope))
    return [name_tag(name), *(tag for tag in record.tags if not tag.startswith(_OURS)), *scopes]


def name_tag(name: str) -> str:
    """Return the tag that the rows of one memory have, and no others."""
    return f"{_OURS}{name}"


def wanted_tags(query: SearchQuery) -> list[str]:
    """Return tags of which a hit has one; MemorySync cannot ask for two at once, and so the scope goes first."""
    if query.scope is not None:
        return [_scope_tag(query.scope)]
    return [tag for tag in query.tags if not tag.startswith(_OURS)][:1]


def _version(row: Row, token: str) -> Version:
    metadata = row.metadata
    id = metadata.get(_ID) or RowId(token, str(row.id), str(metadata.get(_NAME))).id
    handle = metadata.get(_ROWS) or handle_of([row.id])
    stored = Stored.from_text(metadata[_ENVELOPE], metadata.get(_TEXT), id=id, handle=str(handle))
    if user_token(stored.record.user_id) != token or RowId.read(stored.record.id) is None:
        raise another_users(VENDOR)
    return Version(stored, bool(metadata.get(_REPLACED)), row.score)


def _written(version: Version) -> tuple[datetime, int]:
    """Return by what versions are ordered; of rows of one version, the first stands for all."""
    record = version.stored.record
    return record.updated_at or record.created_at, -numbers_of(version.stored)[0]


def _scope_tag(node: str) -> str:
    return f"{_OURS}scope:{node}"
