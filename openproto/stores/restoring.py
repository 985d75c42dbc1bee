"""What stores share in writing records as they are: checking and indexing them, and settling who supersedes whom.

`restore` writes records as verbs return them, `load` what a snapshot holds, which also knows each handover's moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, TypeVar

from openproto.embedding import Vector
from openproto.errors import OpenProtoError
from openproto.ids import is_uuid, moment_of
from openproto.models import MemoryRecord, Restored, RestoreOutcome, StoredRecord
from openproto.provider import GeneratedKey, KeyedInput
from openproto.requests import MemoryInput, RecordRef, build
from openproto.stores.indexer import IndexedBatch, Indexer

W = TypeVar("W")

Handovers: TypeAlias = list[tuple[str, datetime]]
"""The id of each successor and the moment of its handover, the newest last."""

_UNIT = 0.01
"""How far the length of a vector may be from one after it was kept in half precision."""

_COPIED = ("content", "user_id", "scope", "tags", "confidence", "valid_from", "valid_to", "supersedes", "key")


async def index_records(
    indexer: Indexer[W], records: Sequence[StoredRecord], model: str | None = None
) -> IndexedBatch[W]:
    """Return each record ready to be written under its own id, or why it cannot be.

    The vectors that stand with the records are taken over where they are of the indexer's own model.
    """
    checked = [input_of(stored.record) for stored in records]
    same = model is not None and model == indexer.model
    known = [
        _vector(stored.vector, indexer.dim) if same else None
        for stored, item in zip(records, checked, strict=True)
        if isinstance(item, KeyedInput)
    ]
    items = [item for item in checked if isinstance(item, KeyedInput)]
    indexed = iter(await indexer.index_many(items, list, known))
    return [next(indexed) if isinstance(item, KeyedInput) else item for item in checked]


def as_stored(records: Sequence[MemoryRecord]) -> Sequence[StoredRecord]:
    """Return records as verbs return them, of whose handovers only the last is known, and not its moment."""
    unknown = {"begins": None, "handovers": None, "vector": None}
    return [StoredRecord.of_valid({"record": record, **unknown}, {}) for record in records]


def is_generated(key: str) -> bool:
    """Say whether a client made the idempotency key for one call, which nobody else repeats."""
    return moment_of(key) is not None


def to_settle(records: Iterable[StoredRecord]) -> set[str]:
    """Return the id of each record of their user whose handovers must be worked out, now that these are written."""
    return {
        id
        for each in records
        if each.handovers is None
        for id in (*([each.record.id] if each.record.superseded_by else ()), *each.record.supersedes)
    }


def outcome_of(record: MemoryRecord, outcome: Restored) -> RestoreOutcome:
    """Return the outcome of a record."""
    return RestoreOutcome(id=record.id, user_id=record.user_id, outcome=outcome)


def refused(record: MemoryRecord, error: OpenProtoError) -> RestoreOutcome:
    """Return the outcome of a record that was not written."""
    return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="refused", error=error.message)


def settled(
    before: Handovers,
    successors: Mapping[str, datetime],
    written: Mapping[str, StoredRecord],
    stored: StoredRecord | None,
) -> Handovers:
    """Return the handovers of a record after a restore.

    `before` is what the store knew, `successors` the existing records that name it, oldest first, with the moments
    from which they hold; `written` what is new, by id, and `stored` the record where it is new itself.
    """
    known = dict(before)
    if stored is not None and stored.handovers is not None:
        return [*before, *((id, moment) for id, moment in successors.items() if id not in known)]
    for id, moment in successors.items():
        # A successor that says when it begins knows better than what its id told while it was not there.
        if id not in known or (id in written and written[id].record.valid_from is not None):
            known[id] = moment
    if stored is None:
        return [*known.items()]
    gone = [(id, moment) for id, moment in before if id not in successors]
    live = [(id, known[id]) for id in successors]
    newest = stored.record.superseded_by
    if newest is not None and newest not in successors:
        # The successor is not in the store: its id says when it was made, where it is one of this project's.
        gone = [(newest, moment_of(newest) or stored.record.created_at)]
    elif newest is None and gone and before[-1] == gone[-1]:
        newest = gone[-1][0]
    return sorted([*gone, *live], key=lambda handover: handover[0] == newest)


def _vector(data: bytes | None, dim: int | None) -> Vector | None:
    """Return the vector, or None for what is none of that length."""
    if data is None or dim is None or len(data) != 2 * dim:
        return None
    import numpy as np

    found: Vector = np.frombuffer(data, "<f2").astype(np.float32)
    length = float(np.linalg.norm(found))
    return found if abs(length - 1) < _UNIT or length == 0 else None


def input_of(record: MemoryRecord) -> KeyedInput | OpenProtoError:
    """Return what `add` would have made the record of, under its own id as the key, or why it cannot be written."""
    fields = {name: value for name in _COPIED if (value := getattr(record, name)) not in (None, [])}
    try:
        if not is_uuid(record.id):  # most are UUIDs, which need no other check
            build(RecordRef, id=record.id)
        item = build(MemoryInput, **fields, source=record.source, **record.extensions)
    except OpenProtoError as error:
        return error
    return KeyedInput(item, GeneratedKey(record.id))
