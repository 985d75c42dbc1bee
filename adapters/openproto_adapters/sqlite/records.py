"""Rows to records and back: how each field of a memory stands in the table."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, overload

from openproto.embedding import Vector
from openproto.models import MemoryRecord
from openproto.stores import moments

COLUMNS = """id, content, user_id, created_at, scope, tags, source, confidence, valid_from, valid_to, supersedes,
    superseded_by, extensions, updated_at, key, version, starts_by_handover, (SELECT model FROM store)"""


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


def pack_embedding(vector: Vector) -> bytes:
    """Return the vector in half precision: half the space, and what every store of this project ranks by."""
    return vector.astype("<f2").tobytes()


def to_json(value: Any) -> str:
    """Return the compact JSON that a column holds."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def to_record(row: tuple[Any, ...]) -> MemoryRecord:
    """Return the record of a row of `COLUMNS`."""
    (
        id, content, user_id, created_at, scope, tags, source, confidence, valid_from, valid_to, supersedes,
        superseded_by, extensions, updated_at, key, version, starts_by_handover, embedding_model,
    ) = row  # fmt: skip
    return MemoryRecord(
        id=id,
        content=content,
        user_id=user_id,
        created_at=moments.from_micros(created_at),
        scope=scope,
        tags=json.loads(tags),
        source=json.loads(source) if source else None,
        confidence=confidence,
        valid_from=None if starts_by_handover else from_micros(valid_from),
        valid_to=from_micros(valid_to),
        supersedes=json.loads(supersedes),
        superseded_by=superseded_by,
        embedding_model=embedding_model,
        updated_at=from_micros(updated_at),
        status="done",
        key=key,
        version=version,
        **json.loads(extensions),
    )
