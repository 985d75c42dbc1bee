"""Rows to records and back: how each field of a memory stands in the table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, overload

from openproto.embedding import Vector
from openproto.models import MemoryRecord, MemorySource
from openproto.stores import moments
from openproto.stores.compact_json import from_json

COLUMNS = """id, content, user_id, created_at, scope, tags, source, confidence, valid_from, valid_to, supersedes,
    superseded_by, extensions, updated_at, key, version, starts_by_handover, (SELECT model FROM store)"""

NO_LIST, _NO_OBJECT = "[]", "{}"
"""What most columns of JSON hold, which need not be parsed."""


@overload
def to_micros(moment: datetime) -> int: ...
@overload
def to_micros(moment: datetime | None) -> int | None: ...
def to_micros(moment: datetime | None) -> int | None:
    """Return microseconds since 1970, which is what the table holds."""
    return None if moment is None else moments.to_micros(moment)


@overload
def from_micros(micros: int) -> datetime: ...
@overload
def from_micros(micros: int | None) -> datetime | None: ...
def from_micros(micros: int | None) -> datetime | None:
    """Return the moment in UTC."""
    return None if micros is None else moments.from_micros(micros)


def pack_embedding(vector: Vector) -> bytearray:
    """Return the vector in half precision: half the space, and what every store of this project ranks by.

    `sqlite3` binds a bytearray in a fraction of the time of bytes.
    """
    return bytearray(vector.astype("<f2"))


def to_record(row: Sequence[Any]) -> MemoryRecord:
    """Return the record of a row of `COLUMNS`."""
    (
        id, content, user_id, created_at, scope, tags, source, confidence, valid_from, valid_to, supersedes,
        superseded_by, extensions, updated_at, key, version, starts_by_handover, embedding_model,
    ) = row  # fmt: skip
    # Validated when it was written: doing so again took longer than the rest of this function.
    return MemoryRecord.of_valid(
        {
            "id": id,
            "content": content,
            "user_id": user_id,
            "created_at": moments.from_micros(created_at),
            "scope": scope,
            "tags": [] if tags == NO_LIST else from_json(tags),
            "source": MemorySource(**from_json(source)) if source else None,
            "confidence": confidence,
            "valid_from": None if starts_by_handover else from_micros(valid_from),
            "valid_to": from_micros(valid_to),
            "supersedes": [] if supersedes == NO_LIST else from_json(supersedes),
            "superseded_by": superseded_by,
            "embedding_model": embedding_model,
            "updated_at": from_micros(updated_at),
            "status": "done",
            "key": key,
            "version": version,
            "duplicate_of": None,
        },
        {} if extensions == _NO_OBJECT else from_json(extensions),
    )
