"""Records written as they are: their ids, moments, keys, and supersession kept, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from openproto.errors import ConflictError, InvalidRequestError, OpenProtoError
from openproto.ids import parse_id
from openproto.models import MemoryRecord, RestoreOutcome
from openproto.provider import RestoreOutcomes
from openproto.requests import MemoryInput
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto.stores.restoring import refused, settled
from openproto_adapters.postgres.records import check_owner, key_hash
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]

# An id that anybody has, and a key that the user has, are left alone; the rest follows from who had them.
INSERT = """
WITH new AS (
    INSERT INTO {schema}.memories (id, user_id, content, scope, tags, source, confidence, valid_from, valid_to,
        extensions, words, more_words, embedding, supersedes, created_at, updated_at, starts_by_handover, key, key_hash,
        revision)
    SELECT $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        -- The version differs from all that the record had before it was deleted.
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    WHERE EXISTS (SELECT FROM {schema}.store WHERE model IS NOT DISTINCT FROM $1)
      AND NOT EXISTS (SELECT FROM {schema}.memories m WHERE m.id = $2)
    ON CONFLICT DO NOTHING
    RETURNING id, user_id, scope
), audited AS (
    INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, clock_timestamp(), $21, 'add', id::text, scope, $22 FROM new
)
SELECT id FROM new
"""

OWNERS = "SELECT m.user_id FROM {schema}.memories m WHERE m.id = $1"

SUCCESSORS = """
SELECT m.user_id, m.id, coalesce(m.valid_from, m.created_at) FROM {schema}.memories m
WHERE m.user_id = $1 AND m.supersedes <> '{}' AND m.supersedes @> ARRAY[$2::uuid] ORDER BY m.created_at, m.id
"""

HANDOVERS = """
SELECT m.user_id, m.successors, m.handovers FROM {schema}.memories m WHERE m.user_id = $1 AND m.id = $2 FOR UPDATE
"""

HAND_OVER = """
UPDATE {schema}.memories m SET successors = $3, handovers = $4, superseded_by = $5, superseded_at = $6,
    revision = m.revision + 1
WHERE m.user_id = $1 AND m.id = $2 RETURNING m.user_id
"""


async def restore(
    fetch: Fetch,
    records: Sequence[MemoryRecord],
    batch: IndexedBatch[PackedWords],
    model: str | None,
    caller: tuple[str | None, str],
) -> RestoreOutcomes:
    """Write the records and return what became of each; then settle who supersedes whom."""
    outcomes = [await _restore_one(fetch, r, new, model, caller) for r, new in zip(records, batch, strict=True)]
    written = {r.id: r for r, made in zip(records, outcomes, strict=True) if made.outcome == "restored"}
    for id, user_id in sorted({(id, r.user_id) for r in written.values() for id in (r.id, *r.supersedes)}):
        await _settle(fetch, id, user_id, written)
    return outcomes


async def _restore_one(
    fetch: Fetch,
    record: MemoryRecord,
    new: IndexedInput[PackedWords] | OpenProtoError,
    model: str | None,
    caller: tuple[str | None, str],
) -> RestoreOutcome:
    if isinstance(new, OpenProtoError):
        return refused(record, new)
    if any(parse_id(id) is None for id in (record.id, *record.supersedes, record.superseded_by or record.id)):
        return refused(record, InvalidRequestError("id: this store keeps only UUIDs; add() makes one"))
    if await fetch(EVERYBODY, INSERT, model, record.id, record.user_id, *_columns(record, new), *caller):
        return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="restored")
    owners = [row[0] for row in await fetch(EVERYBODY, OWNERS, UUID(record.id))]
    if record.user_id in owners:
        return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="exists")
    if owners:
        return refused(record, ConflictError("id: a record of another user has it; add() makes a new one"))
    return refused(record, ConflictError("key: another record of this user bears it; delete that one first"))


def _columns(record: MemoryRecord, new: IndexedInput[PackedWords]) -> tuple[Any, ...]:
    item: MemoryInput = new.item
    starts_by_handover = item.valid_from is None and bool(item.supersedes)
    return (
        item.content,
        item.scope,
        item.tags,
        to_json(item.source.model_dump()) if item.source else None,
        item.confidence,
        record.created_at if starts_by_handover else item.valid_from,
        item.valid_to,
        to_json(item.extensions) if item.model_extra else None,
        *new.words,
        pack_halfvec(new.vector) if new.vector is not None else None,
        [UUID(id) for id in item.supersedes],
        record.created_at,
        record.updated_at,
        starts_by_handover,
        item.key,
        key_hash(item.key),
    )


async def _settle(fetch: Fetch, id: str, user_id: str, written: Mapping[str, MemoryRecord]) -> None:
    acting = acting_for(user_id)
    rows = await fetch(acting, HANDOVERS, user_id, UUID(id))
    if not rows:
        return
    owner, successors, moments = rows[0]
    check_owner([owner], user_id)
    before: list[tuple[str, datetime]] = [*zip(map(str, successors or ()), moments or (), strict=True)]
    existing: dict[str, datetime] = {}
    for owner, successor, moment in await fetch(acting, SUCCESSORS, user_id, UUID(id)):
        check_owner([owner], user_id)
        existing[str(successor)] = moment
    after = settled(before, existing, written.keys(), written.get(id))
    if after != before:
        ids, at = [UUID(by) for by, _ in after], [moment for _, moment in after]
        newest, first = ids[-1] if ids else None, min(at, default=None)
        changed = await fetch(acting, HAND_OVER, user_id, UUID(id), ids, at, newest, first)
        check_owner([row[0] for row in changed], user_id)
