"""Rows to records and back: how each field of a memory stands in the table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from openproto.errors import NotFoundError, ProviderError
from openproto.ids import parse_id
from openproto.models import MemoryRecord, MemorySource
from openproto.stores.compact_json import from_json
from openproto.stores.indexer import IndexedInput

COLUMNS = (
    "id", "content", "user_id", "created_at", "scope", "tags", "source", "confidence", "valid_from", "valid_to",
    "supersedes", "superseded_by", "extensions", "updated_at", "key", "revision", "starts_by_handover",
)  # fmt: skip


def to_uuid(id: str) -> UUID:
    """Return the id as the table holds it; what no store of this project ever made is not to be found."""
    parsed = parse_id(id)
    if parsed is None:
        raise NotFoundError("no such memory")
    return parsed


def version_of(id: str, revision: int) -> str:
    """Return a record's version: another one for each state of each record."""
    return f"{id[-12:]}-{revision}"


def key_hash(key: str | None) -> bytes | None:
    """Return what an index holds of a key, which may be too long for it."""
    return None if key is None else blake2b(key.encode(), digest_size=16).digest()


def check_owner(owners: Iterable[str] | None, user_id: str | None) -> None:
    """Raise ProviderError unless the rows that were read or changed are the user's.

    The second line of defence: a wrong condition ends in an error, and never in a leak.
    """
    if user_id is not None and any(owner != user_id for owner in owners or ()):
        raise foreign()


def foreign() -> ProviderError:
    """Return the error for a row of another user."""
    return ProviderError("the database answered with another user's memory, which was withheld; report it")


def _aware(moment: datetime) -> datetime:
    """asyncpg sends the first and the last moment that Python knows as infinities, and returns those without a zone."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def record_without_date(new: IndexedInput[Any], model: str | None) -> MemoryRecord:
    """Return the record of a memory that is being added; when it is created, the database will say."""
    return new.record(model, version_of(new.id, 1), None)


def with_created_at(record: MemoryRecord, created_at: datetime) -> MemoryRecord:
    """Return the record, which is new, with the moment of its creation."""
    vars(record)["created_at"] = created_at
    return record


def own_record(rows: Sequence[Any], user_id: str | None) -> MemoryRecord:
    """Return the record of the only row, after checking whose it is."""
    if not rows:
        raise NotFoundError("no such memory")
    record = to_record(rows[0])
    check_owner((record.user_id,), user_id)
    return record


def to_record(row: Iterable[Any]) -> MemoryRecord:
    """Return the record of a row of `COLUMNS` and the store's model."""
    (
        id, content, user_id, created_at, scope, tags, source, confidence, valid_from, valid_to, supersedes,
        superseded_by, extensions, updated_at, key, revision, starts_by_handover, embedding_model,
    ) = row  # fmt: skip
    id = str(id)
    # Validated when it was written: doing so again took longer than the rest of this function.
    return MemoryRecord.of_valid(
        {
            "id": id,
            "content": content,
            "user_id": user_id,
            "created_at": _aware(created_at),
            "scope": scope,
            "tags": tags,
            "source": MemorySource(**from_json(source)) if source else None,
            "confidence": confidence,
            "valid_from": None if starts_by_handover or valid_from is None else _aware(valid_from),
            "valid_to": valid_to and _aware(valid_to),
            "supersedes": [str(old) for old in supersedes] if supersedes else [],
            "superseded_by": str(superseded_by) if superseded_by else None,
            "embedding_model": embedding_model,
            "updated_at": updated_at and _aware(updated_at),
            "status": "done",
            "key": key,
            "version": version_of(id, revision),
            "duplicate_of": None,
        },
        from_json(extensions) if extensions else {},
    )
