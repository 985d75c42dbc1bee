"""What a memory is in Memori's tables, and how it becomes a record."""

from __future__ import annotations

import json
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from openproto.emulation import Stored, another_users, damaged, user_token
from openproto.stores.moments import from_micros, to_micros

if TYPE_CHECKING:
    from sqlalchemy import Row

EXTENSION = "x-memori"

_LONGEST_ENTITY = 100
_TOKEN = "openproto:"  # noqa: S105 - a prefix of names, no secret


def entity(user_id: str) -> str:
    """Return the name of a user at Memori: the id itself where Memori can tell it apart, otherwise a token of it.

    Memori takes an id of digits for the number of a row, which may be anybody's; it strips ids, and keeps 100
    characters.
    """
    plain = len(user_id) <= _LONGEST_ENTITY and user_id == user_id.strip() and not user_id.isdigit()
    return user_id if plain and not user_id.startswith(_TOKEN) else _TOKEN + user_token(user_id)


def uniq(id: str, content: str) -> str:
    """Return what distinguishes a fact from every other; Memori's own hash takes only Latin letters and digits."""
    return sha256(f"{id}\0{content}".encode()).hexdigest()


def columns(stored: Stored) -> dict[str, Any]:
    """Return the columns of our table that a change of the record may change."""
    record = stored.record
    return {
        "scope": record.scope,
        "tags": tag_text(record.tags),
        "valid_from": micros(record.valid_from or stored.holds_from),
        "valid_to": micros(record.valid_to),
        "superseded": micros(stored.superseded_at),
        "envelope": stored.to_text(),
    }


def tag_text(tags: Any) -> str:
    """Return a tag, or a list of them, as it stands in the column."""
    return json.dumps(tags, ensure_ascii=False)


def micros(moment: datetime | None) -> int | None:
    """Return a moment as SQLite, which has no type for one, can keep it."""
    return None if moment is None else to_micros(moment)


def to_stored(row: Row[*tuple[Any, ...]], name: str | None = None) -> Stored | None:
    """Return the memory in a row of `tables.ROWS`; ProviderError for one of another entity than `name`."""
    if name is not None and row.external_id != name:
        raise another_users("the database")
    if row.envelope is None:
        return None if row.external_id.startswith(_TOKEN) else _foreign(row)
    stored = Stored.from_text(row.envelope, row.content, id=row.uuid)
    if entity(stored.record.user_id) != row.external_id:
        raise damaged("names another user than Memori does")
    return stored


def _foreign(row: Row[*tuple[Any, ...]]) -> Stored:
    extensions: dict[str, Any] = {EXTENSION: {"num_times": row.num_times}}
    return Stored.foreign(
        id=row.uuid, content=row.content, user_id=row.external_id, created_at=from_micros(row.created), **extensions
    )
