"""What stores share in writing records as they are: checking and indexing them, and settling who supersedes whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias, TypeVar

from openproto.errors import OpenProtoError
from openproto.ids import moment_of
from openproto.models import MemoryRecord, RestoreOutcome
from openproto.provider import GeneratedKey, KeyedInput
from openproto.requests import MemoryInput, RecordRef, build
from openproto.stores.indexer import IndexedBatch, Indexer

W = TypeVar("W")

Handovers: TypeAlias = list[tuple[str, datetime]]
"""The id of each successor and the moment of its handover, the newest last."""

_COPIED = ("content", "user_id", "scope", "tags", "confidence", "valid_from", "valid_to", "supersedes", "key")


async def index_records(indexer: Indexer[W], records: Sequence[MemoryRecord]) -> IndexedBatch[W]:
    """Return each record ready to be written under its own id, or why it cannot be."""
    checked = [_input(record) for record in records]
    indexed = iter(await indexer.index_many([item for item in checked if isinstance(item, KeyedInput)], list))
    return [next(indexed) if isinstance(item, KeyedInput) else item for item in checked]


def refused(record: MemoryRecord, error: OpenProtoError) -> RestoreOutcome:
    """Return the outcome of a record that was not written."""
    return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="refused", error=error.message)


def settled(
    before: Handovers, successors: Mapping[str, datetime], written: Collection[str], record: MemoryRecord | None
) -> Handovers:
    """Return the handovers of a record after a restore.

    `before` is what the store knew, `successors` the existing records that name it, oldest first, with the moments
    from which they hold; `written` the ids that are new, and `record` the record where it is new itself.
    """
    known = dict(before)
    gone = [(id, moment) for id, moment in before if id not in successors]
    live = [(id, moment if id in written else known.get(id, moment)) for id, moment in successors.items()]
    newest = record.superseded_by if record else None
    if record is not None and newest is not None and newest not in successors:
        # The successor is not in the store: its id says when it was made, where it is one of this project's.
        gone = [(newest, moment_of(newest) or record.created_at)]
    elif newest is None and gone and before[-1] == gone[-1]:
        newest = gone[-1][0]
    return sorted([*gone, *live], key=lambda handover: handover[0] == newest)


def _input(record: MemoryRecord) -> KeyedInput | OpenProtoError:
    fields = {name: getattr(record, name) for name in _COPIED}
    try:
        build(RecordRef, {"id": record.id})
        item = build(MemoryInput, {**fields, "source": record.source, **record.extensions})
    except OpenProtoError as error:
        return error
    return KeyedInput(item, GeneratedKey(record.id))
