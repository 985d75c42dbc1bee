"""What stores share in writing records as they are: checking and indexing them, and settling who supersedes whom.

`restore` writes records as verbs return them, `load` what a snapshot holds, which also knows each handover's moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, TypeAlias, TypeVar

from openproto.embedding import Vector
from openproto.errors import InvalidRequestError, OpenProtoError
from openproto.fields import (
    MAX_CONTENT_LENGTH,
    MAX_KEY_LENGTH,
    MAX_TAGS,
    is_label,
    is_scope,
    is_tag,
    is_text,
    of_valid,
)
from openproto.ids import is_uuid, moment_of
from openproto.models import MemoryRecord, Restored, RestoreOutcome, StoredRecord
from openproto.provider import GeneratedKey, KeyedInput
from openproto.requests import MemoryInput, RecordRef, SourceInput, build
from openproto.stores.indexer import IndexedBatch, Indexer

W = TypeVar("W")

Handovers: TypeAlias = list[tuple[str, datetime]]
"""The id of each successor and the moment of its handover, the newest last."""

_UNIT = 0.01
"""How far the length of a vector may be from one after it was kept in half precision."""

_PLAIN_DEPTH, _LARGE = 20, 2**63

_REQUIRED = ("content", "user_id")
_COPIED = (
    *_REQUIRED,
    *("scope", "tags", "source", "confidence", "valid_from", "valid_to", "supersedes", "key"),
)
"""The fields of an input that a record has, in their order."""


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
    return RestoreOutcome.of_valid({"id": record.id, "user_id": record.user_id, "outcome": outcome, "error": None}, {})


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
    if record.id in record.supersedes:
        return InvalidRequestError("supersedes: a record cannot supersede itself")
    if is_uuid(record.id) and (valid := _valid_input(record)) is not None:
        return KeyedInput(valid, GeneratedKey(record.id))
    fields = {name: value for name in _COPIED if (value := getattr(record, name)) not in (None, [])}
    try:
        build(RecordRef, id=record.id)
        item = build(MemoryInput, **fields, **record.extensions)
    except OpenProtoError as error:
        return error
    return KeyedInput(item, GeneratedKey(record.id))


def _valid_input(record: MemoryRecord) -> MemoryInput | None:
    """Return the same of a record whose fields are as validating would leave them, as nearly all are; else None.

    Pydantic, which says what is wrong with it, takes several times as long.
    """
    had = vars(record)
    fields = {name: had[name] for name in _COPIED}
    content, user_id, scope, tags, source, confidence, valid_from, valid_to, supersedes, key = fields.values()
    given = {name for name, value in fields.items() if value is not None and value != []}
    extensions = record.extensions if record.model_extra else {}
    if not (is_text(content, MAX_CONTENT_LENGTH) and type(user_id) is str and is_label(user_id)):
        return None
    if (len(given) > len(_REQUIRED) or extensions) and not (
        (scope is None or (type(scope) is str and is_scope(scope)))
        and len(tags) <= MAX_TAGS
        and all(type(tag) is str and is_tag(tag) for tag in tags)
        and (confidence is None or (type(confidence) is float and 0 <= confidence <= 1))
        and (valid_from is None or _is_plain(valid_from))
        and (valid_to is None or _is_plain(valid_to))
        and (valid_from is None or valid_to is None or valid_from < valid_to)
        and all(map(is_uuid, supersedes))
        and len({*supersedes}) == len(supersedes)
        and (key is None or is_text(key, MAX_KEY_LENGTH))
        and all(map(_is_plain_json, extensions.values()))
    ):
        return None
    if source is not None:
        try:
            fields["source"] = build(SourceInput, **source.model_dump())
        except InvalidRequestError:
            return None
    fields["on_duplicate"] = "keep"
    return of_valid(MemoryInput, fields, extensions, given | extensions.keys() if extensions else given)


def _is_plain_json(value: Any, depth: int = 0) -> bool:
    """Say whether the value is what JSON can hold, and none of it is rare."""
    kind = type(value)
    if kind is str:
        return bool(value.isascii()) and "\0" not in value
    if kind is dict:
        return depth < _PLAIN_DEPTH and all(
            type(name) is str and _is_plain_json(name) and _is_plain_json(part, depth + 1)
            for name, part in value.items()
        )
    if kind is list:
        return depth < _PLAIN_DEPTH and all(_is_plain_json(part, depth + 1) for part in value)
    return kind is bool or (kind is int and -_LARGE < value < _LARGE) or (kind is float and isfinite(value))


def _is_plain(moment: datetime) -> bool:
    return type(moment) is datetime and moment.tzinfo is UTC
