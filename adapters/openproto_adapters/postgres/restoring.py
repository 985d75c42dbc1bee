"""Records written as they are: their ids, moments, keys, and supersession kept, in one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from openproto.errors import ConflictError, InvalidRequestError, OpenProtoError
from openproto.ids import is_uuid
from openproto.models import MemoryRecord, RestoreOutcome, StoredRecord, UserPart
from openproto.provider import RestoreOutcomes
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto.stores.restoring import outcome_of, refused, settled, to_settle
from openproto_adapters.postgres.batches import inputs_to_json, told
from openproto_adapters.postgres.records import check_owner, key_hash
from openproto_adapters.postgres.row_security import EVERYBODY, Acting, acting_for
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvecs

Fetch: TypeAlias = Callable[..., Awaitable[Sequence[Any]]]
_Writable: TypeAlias = tuple[StoredRecord, IndexedInput[PackedWords]]
Caller: TypeAlias = tuple[str | None, str]
"""The app and the request that audit entries name."""

# An id that anybody has, and a key that the user has, are left alone; the rest follows from who had them.
INSERT = """
WITH item AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        json_to_recordset($2::json) AS (user_id text, content text, scope text, tags text[], source json,
            confidence double precision, valid_from timestamptz, valid_to timestamptz, supersedes uuid[], key text),
        json_to_recordset($3::json) AS (id uuid, created_at timestamptz, updated_at timestamptz, begins timestamptz,
            successors uuid[], handovers timestamptz[]),
        unnest($4::json[]), unnest($5::{vector}.sparsevec[]), unnest($6::{vector}.sparsevec[]),
        unnest($7::{vector}.halfvec[]), unnest($8::bytea[])
    ) WITH ORDINALITY AS item (user_id, content, scope, tags, source, confidence, valid_from, valid_to, supersedes, key,
        id, created_at, updated_at, begins, successors, handovers, extensions, words, more_words, embedding, key_hash,
        position)
), new AS (
    INSERT INTO {schema}.memories (id, user_id, content, scope, tags, source, confidence, valid_from, valid_to,
        extensions, words, more_words, embedding, supersedes, created_at, updated_at, starts_by_handover, key, key_hash,
        successors, handovers, superseded_by, superseded_at, revision)
    SELECT id, user_id, content, scope, coalesce(tags, '{}'), source, confidence, coalesce(valid_from, begins),
        valid_to, extensions, words, more_words, embedding, coalesce(supersedes, '{}'), created_at, updated_at,
        valid_from IS NULL AND begins IS NOT NULL, key, key_hash,
        successors, handovers, successors[cardinality(successors)],
        (SELECT min(moment) FROM unnest(handovers) AS moment),
        -- The version differs from all that the record had before it was deleted.
        (extract(epoch FROM clock_timestamp()) * 1000000)::bigint
    FROM item
    WHERE EXISTS (SELECT FROM {schema}.store WHERE model IS NOT DISTINCT FROM $1)
      AND NOT EXISTS (SELECT FROM {schema}.memories m WHERE m.id = item.id)
    ORDER BY position
    ON CONFLICT DO NOTHING
    RETURNING id, user_id, scope
), audited AS (
    INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, clock_timestamp(), $9, 'add', id::text, scope, $10 FROM new
)
SELECT id::text FROM new
"""

OWNERS = "SELECT m.id::text, m.user_id FROM {schema}.memories m WHERE m.id = ANY($1::uuid[])"

# The records that a successor names, one of both being new, and that do not know of it. The links are found first:
# a table that was just filled has no statistics, and the planner would compare each record with each.
MISSING_HANDOVERS = """
WITH link AS MATERIALIZED (
    SELECT named.id, m.id AS successor FROM {schema}.memories m CROSS JOIN LATERAL unnest(m.supersedes) AS named (id)
    WHERE m.user_id = $1 AND m.supersedes <> '{}' AND (m.id = ANY($2::uuid[]) OR named.id = ANY($2::uuid[]))
)
SELECT m.user_id, m.id::text FROM link JOIN {schema}.memories m ON m.id = link.id
WHERE m.user_id = $1 AND NOT coalesce(m.successors @> ARRAY[link.successor], false)
"""

LAST_WRITES = """
SELECT DISTINCT ON (m.memory_id) m.user_id, m.memory_id, m.action FROM {schema}.audit m
WHERE m.user_id = $1 AND m.action IN ('add', 'delete') AND m.memory_id = ANY($2::text[])
ORDER BY m.memory_id, m.timestamp DESC, m.number DESC
"""

INSERT_KEYS = """
INSERT INTO {schema}.keys (user_id, idempotency_key, memory_id, fingerprint)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bytea[]) ON CONFLICT DO NOTHING
"""

INSERT_AUDIT_ONCE = """
INSERT INTO {schema}.audit (user_id, timestamp, action, app, memory_id, scope, request_id)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
    AS item (user_id, timestamp, action, app, memory_id, scope, request_id)
WHERE NOT EXISTS (
    SELECT FROM {schema}.audit m WHERE m.user_id = item.user_id AND m.timestamp = item.timestamp
        AND m.action = item.action AND (m.app, m.memory_id, m.scope, m.request_id)
            IS NOT DISTINCT FROM (item.app, item.memory_id, item.scope, item.request_id))
"""

SUCCESSORS = """
SELECT m.user_id, named.id::text, m.id::text, coalesce(m.valid_from, m.created_at)
FROM {schema}.memories m CROSS JOIN LATERAL unnest(m.supersedes) AS named (id)
WHERE m.user_id = $1 AND m.supersedes <> '{}' AND named.id = ANY($2::uuid[])
ORDER BY m.created_at, m.id
"""

HANDOVERS = """
SELECT m.user_id, m.id::text, m.successors, m.handovers FROM {schema}.memories m
WHERE m.user_id = $1 AND m.id = ANY($2::uuid[]) ORDER BY m.id FOR UPDATE
"""

HAND_OVER = """
UPDATE {schema}.memories m SET successors = new.successors, handovers = new.handovers,
    superseded_by = new.successors[cardinality(new.successors)],
    superseded_at = (SELECT min(moment) FROM unnest(new.handovers) AS moment), revision = m.revision + 1
FROM json_to_recordset($2::json) AS new (id uuid, successors uuid[], handovers timestamptz[])
WHERE m.user_id = $1 AND m.id = new.id RETURNING m.user_id
"""


async def restore(
    fetch: Fetch,
    records: Sequence[StoredRecord],
    batch: IndexedBatch[PackedWords],
    model: str | None,
    caller: Caller,
    deleted: Collection[str] = (),
    *,
    apart: bool = False,
) -> RestoreOutcomes:
    """Write the records, but those whose ids are `deleted`; then settle who supersedes whom.

    `apart` writes each user's records by a statement of its own, as where users are on several servers.
    """
    writable: dict[str, _Writable] = {}
    outcomes: dict[int, RestoreOutcome] = {}
    for number, (stored, new) in enumerate(zip(records, batch, strict=True)):
        if stored.record.id in deleted:
            outcomes[number] = outcome_of(stored.record, "deleted")
        elif isinstance(new, OpenProtoError):
            outcomes[number] = refused(stored.record, new)
        elif not is_uuid(stored.record.id) or not all(map(is_uuid, _named_by(stored))):
            error = InvalidRequestError("id: this store keeps only UUIDs; add() makes one")
            outcomes[number] = refused(stored.record, error)
        else:
            writable.setdefault(stored.record.id, (stored, new))
    fresh: set[str] = set()
    for acting, part in await _parts_apart(fetch, writable) if apart else [(EVERYBODY, [*writable.values()])]:
        if part:
            fresh |= {row[0] for row in await fetch(acting, INSERT, model, *_columns(part), *caller)}
    written = {id: stored for id, (stored, _) in writable.items() if id in fresh}
    # What stood in the way of the first of an id need not stand in the way of the next one.
    left = [number for number in range(len(records)) if number not in outcomes]
    again = [
        number
        for number in left
        if (id := records[number].record.id) not in fresh and _differs(records[number], writable[id][0])
    ]
    owners: dict[str, set[str]] = {}
    for id, owner in await fetch(EVERYBODY, OWNERS, [*writable]) if len(written) < len(left) else ():
        owners.setdefault(id, set()).add(owner)
    for number in left:
        stored = records[number]
        is_new = written.get(stored.record.id) is stored
        outcomes[number] = outcome_of(stored.record, "restored") if is_new else _left_alone(stored.record, owners)
    if again:  # now that it is told of the first ones why they were left alone
        rest = [records[number] for number in again], [batch[number] for number in again]
        outcomes |= zip(again, await restore(fetch, *rest, model, caller, deleted, apart=apart), strict=True)
    await _settle_all(fetch, written)
    return [outcomes[number] for number in range(len(records))]


async def load(
    fetch: Fetch,
    parts: Sequence[UserPart],
    batch: IndexedBatch[PackedWords],
    model: str | None,
    caller: Caller,
    *,
    include_deleted: bool,
    apart: bool = False,
) -> RestoreOutcomes:
    """Write parts of a snapshot: records, the keys that were used, and audit entries that are not there yet."""
    records = [stored for part in parts for stored in part.records]
    deleted: set[str] = set()
    for part in parts if not include_deleted else ():
        ids = [stored.record.id for stored in part.records]
        last = await fetch(acting_for(part.user_id), LAST_WRITES, part.user_id, ids) if ids else ()
        check_owner([row[0] for row in last], part.user_id)
        deleted |= {id for _, id, action in last if action == "delete"}
    outcomes = await restore(fetch, records, batch, model, caller, deleted, apart=apart)
    for group in [[part] for part in parts] if apart else [parts]:
        await _keep(fetch, group)
    return outcomes


async def _keep(fetch: Fetch, parts: Sequence[UserPart]) -> None:
    """Write the keys that were used, and the audit entries."""
    acting = acting_for(*(part.user_id for part in parts))
    if keys := [
        (part.user_id, key.idempotency_key, key.record_id, bytes.fromhex(key.fingerprint))
        for part in parts
        for key in part.keys
        if is_uuid(key.record_id)
    ]:
        await fetch(acting, INSERT_KEYS, *zip(*keys, strict=True))
    if entries := [
        (part.user_id, e.timestamp, e.action, e.app, e.memory_id, e.scope, e.request_id)
        for part in parts
        for e in part.audit
    ]:
        await fetch(acting, INSERT_AUDIT_ONCE, *zip(*entries, strict=True))


async def _parts_apart(fetch: Fetch, writable: Mapping[str, _Writable]) -> Iterable[tuple[Acting, Sequence[_Writable]]]:
    """Return the records of each user, without those whose ids are another user's."""
    owners = {row[0]: row[1] for row in await fetch(EVERYBODY, OWNERS, [*writable])} if writable else {}
    parts: dict[str, list[_Writable]] = {}
    for id, (stored, new) in sorted(writable.items(), key=lambda entry: entry[1][0].record.user_id):
        if owners.get(id, stored.record.user_id) == stored.record.user_id:
            parts.setdefault(stored.record.user_id, []).append((stored, new))
    return [(acting_for(user_id), part) for user_id, part in parts.items()]


def _differs(stored: StoredRecord, first: StoredRecord) -> bool:
    return (stored.record.user_id, stored.record.key) != (first.record.user_id, first.record.key)


def _named_by(stored: StoredRecord) -> Sequence[str]:
    by = stored.record.superseded_by
    if by is None and not stored.record.supersedes and not stored.handovers:
        return ()
    return [*stored.record.supersedes, *([] if by is None else [by]), *[id for id, _ in stored.handovers or ()]]


def _left_alone(record: MemoryRecord, owners: Mapping[str, Collection[str]]) -> RestoreOutcome:
    """Return why the record was not written, by whose its id is."""
    if record.user_id in owners.get(record.id, ()):
        return outcome_of(record, "exists")
    if record.id in owners:
        return refused(record, ConflictError("id: a record of another user has it; add() makes a new one"))
    return refused(record, ConflictError("key: another record of this user bears it; delete that one first"))


def _columns(writable: Sequence[_Writable]) -> tuple[Any, ...]:
    items = [new.item for _, new in writable]
    vectors = [new.vector for _, new in writable if new.vector is not None]
    return (
        inputs_to_json(items),
        to_json([_kept(stored) for stored, _ in writable]),
        told([to_json(item.extensions) if item.model_extra else None for item in items]),
        [new.words.first for _, new in writable],
        told([new.words.others for _, new in writable]),
        pack_halfvecs(vectors) if vectors else [],
        told([key_hash(item.key) for item in items]),
    )


def _kept(stored: StoredRecord) -> dict[str, Any]:
    """Return what no input has of a record."""
    record = stored.record
    kept: dict[str, Any] = {"id": record.id, "created_at": record.created_at.isoformat()}
    if record.updated_at is not None:
        kept["updated_at"] = record.updated_at.isoformat()
    if stored.begins is not None or record.supersedes:
        kept["begins"] = (stored.begins or record.created_at).isoformat()
    if stored.handovers:
        kept["successors"] = [id for id, _ in stored.handovers]
        kept["handovers"] = [moment.isoformat() for _, moment in stored.handovers]
    return kept


async def _settle_all(fetch: Fetch, written: Mapping[str, StoredRecord]) -> None:
    of_user: dict[str, dict[str, StoredRecord]] = {}
    for id, stored in written.items():
        of_user.setdefault(stored.record.user_id, {})[id] = stored
    for user_id, records in sorted(of_user.items()):  # in one order, so that no two transactions wait for each other
        missing = await fetch(acting_for(user_id), MISSING_HANDOVERS, user_id, [*records])
        check_owner([row[0] for row in missing], user_id)
        if unsettled := to_settle(records.values()) | {id for _, id in missing}:
            await _settle(fetch, user_id, [*unsettled], records)


async def _settle(fetch: Fetch, user_id: str, ids: Sequence[str], written: Mapping[str, StoredRecord]) -> None:
    acting = acting_for(user_id)
    found = await fetch(acting, HANDOVERS, user_id, ids)
    check_owner([row[0] for row in found], user_id)
    existing: dict[str, dict[str, datetime]] = {}
    for owner, id, successor, moment in await fetch(acting, SUCCESSORS, user_id, ids):
        check_owner([owner], user_id)
        existing.setdefault(id, {})[successor] = moment
    changes: list[dict[str, Any]] = []
    for _, id, successors, moments in found:
        before: list[tuple[str, datetime]] = [*zip(map(str, successors or ()), moments or (), strict=True)]
        after = settled(before, existing.get(id, {}), written, written.get(id))
        if after != before:
            by, at = [successor for successor, _ in after], [moment.isoformat() for _, moment in after]
            changes.append({"id": id, "successors": by, "handovers": at})
    if changes:
        changed = await fetch(acting, HAND_OVER, user_id, to_json(changes))
        check_owner([row[0] for row in changed], user_id)
