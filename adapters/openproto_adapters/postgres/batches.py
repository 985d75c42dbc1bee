"""`add_many`: a whole batch, packed for one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar

from openproto.errors import NotFoundError, OpenProtoError
from openproto.fanout import gather_all
from openproto.ids import is_uuid
from openproto.models import MemoryRecord
from openproto.provider import Call
from openproto.requests import MemoryInput
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedInput
from openproto_adapters.postgres import queries
from openproto_adapters.postgres.queries import ADDED_COLUMNS, STORE_FITS, UNWRITTEN
from openproto_adapters.postgres.records import (
    check_owner,
    foreign,
    key_hash,
    record_without_date,
    to_uuid,
    with_created_at,
)
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec, pack_halfvecs

W = TypeVar("W")

_BARE = frozenset({"content", "user_id", "on_duplicate"})
_MOMENTS = frozenset({"valid_from", "valid_to"})
_AT_ONCE = 50
"""Records that are made before the event loop gets its turn."""

# $1 the model; then of each item the app and the request of its call, and its fields, of which what varies in length
# comes as one JSON document.
_FIELDS = """user_id text, content text, scope text, tags text[], source json, confidence double precision,
            valid_from timestamptz, valid_to timestamptz, supersedes uuid[], key text"""
_ITEMS = f"""SELECT *<moment> FROM ROWS FROM (
        unnest($2::text[]), unnest($3::text[]), json_to_recordset($4::json) AS ({_FIELDS}),
        unnest($5::uuid[]), unnest($6::json[]),
        unnest($7::{{vector}}.sparsevec[]), unnest($8::{{vector}}.sparsevec[]), unnest($9::{{vector}}.halfvec[])<keys>
    ) WITH ORDINALITY AS item (app, request_id, user_id, content, scope, tags, source, confidence, valid_from,
        valid_to, supersedes, key, id, extensions, words, more_words, embedding<key names>, position)
    WHERE {STORE_FITS}"""
_ITEM = """id, user_id, content, scope, coalesce(tags, '{}'), source, confidence, valid_from, valid_to, extensions,
        words, more_words, embedding, coalesce(supersedes, '{}')"""
_AUDITED = """audited AS (
    INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, moment, coalesce(source ->> 'app', app), 'add', id::text, scope, request_id FROM <written>
)"""
_ALL_AUDITED = _AUDITED.replace("<written>", "item JOIN new USING (id) ORDER BY position")
# When each was written, in order, and NULL for what was not.
_WRITTEN = "SELECT array_agg(new.moment ORDER BY position), <handed over> FROM item LEFT JOIN new USING (id)"

_NEW_ITEMS = _ITEMS.replace("<keys>", "").replace("<key names>", "")
# What is new is written all or not at all, so that nothing is to be joined.
ADD_MANY_NEW = f"""
WITH item AS MATERIALIZED (
    {_NEW_ITEMS.replace("<moment>", ", clock_timestamp() AS moment")}
), new AS (
    INSERT INTO {{schema}}.memories ({ADDED_COLUMNS}, created_at) SELECT {_ITEM}, moment FROM item
), {_AUDITED.replace("<written>", "item")}
SELECT array_agg(moment), true FROM item
"""
RETRY_MANY_NEW = f"""
WITH item AS MATERIALIZED (
    {_NEW_ITEMS.replace("<moment>", "")}
), new AS (
    INSERT INTO {{schema}}.memories ({ADDED_COLUMNS})
    SELECT {_ITEM} FROM item WHERE true{UNWRITTEN.replace("<user>", "item.user_id").replace("<id>", "item.id")}
    RETURNING id, created_at AS moment
), {_ALL_AUDITED}
{_WRITTEN.replace("<handed over>", "true")}
"""

_KEYED_ITEMS = _ITEMS.replace("<keys>", ", unnest($10::text[]), unnest($11::bytea[]), unnest($12::bytea[])").replace(
    "<key names>", ", idempotency_key, fingerprint, key_hash"
)
_ALL_HANDED_OVER = "(SELECT count(*) FROM successor) = (SELECT count(*) FROM superseded)"
# A successor without a valid_from holds from the moment of this write on.
_BEGINS = "CASE WHEN supersedes IS NULL THEN valid_from ELSE coalesce(valid_from, (SELECT now FROM moment)) END"
# Keys in an order that does not depend on that of the items: two batches would else wait for each other.
ADD_MANY = f"""
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), item AS MATERIALIZED (
    {_KEYED_ITEMS.replace("<moment>", "")}
), old AS (
    SELECT m.id, item.user_id, item.id AS by, item.position FROM item, {{schema}}.memories m
    WHERE item.supersedes IS NOT NULL AND m.user_id = item.user_id AND m.id = ANY(item.supersedes)
    ORDER BY m.id FOR UPDATE OF m
), claimed AS (
    INSERT INTO {{schema}}.keys (memory_id, user_id, idempotency_key, fingerprint)
    SELECT id, user_id, idempotency_key, fingerprint FROM item
    WHERE supersedes IS NULL OR (SELECT count(*) FROM old WHERE old.by = item.id) = cardinality(supersedes)
    ORDER BY user_id, idempotency_key, position
    ON CONFLICT DO NOTHING
    RETURNING memory_id
), new AS (
    INSERT INTO {{schema}}.memories ({ADDED_COLUMNS}, created_at, key, key_hash, starts_by_handover)
    SELECT {_ITEM.replace("valid_from", _BEGINS)}, (SELECT now FROM moment), key, key_hash,
        valid_from IS NULL AND supersedes IS NOT NULL
    FROM item JOIN claimed ON claimed.memory_id = item.id ORDER BY user_id, key_hash, position
    RETURNING id, created_at AS moment, valid_from AS begins
), successor AS (
    SELECT old.id, old.user_id, array_agg(new.id ORDER BY position) AS ids, min(new.begins) AS first,
        array_agg(new.begins ORDER BY position) AS moments
    FROM old JOIN new ON new.id = old.by GROUP BY old.id, old.user_id
), superseded AS (
    UPDATE {{schema}}.memories m
    SET superseded_by = successor.ids[cardinality(successor.ids)], revision = m.revision + 1,
        superseded_at = least(m.superseded_at, successor.first),
        successors = m.successors || successor.ids, handovers = m.handovers || successor.moments
    FROM successor WHERE m.user_id = successor.user_id AND m.id = successor.id
    RETURNING m.id
), {_ALL_AUDITED}
{_WRITTEN.replace("<handed over>", _ALL_HANDED_OVER)}
"""


Added: TypeAlias = MemoryRecord | IndexedInput[W]
"""The record of an add, or the item itself where nothing was written."""

Entry: TypeAlias = IndexedInput[W] | MemoryRecord | OpenProtoError
"""An item ready to be written, the record that says the same, or why it is refused."""


Written: TypeAlias = Sequence[Entry[PackedWords]]
Fetch: TypeAlias = Callable[..., Awaitable[Any]]


class Batch(NamedTuple):
    """A batch on its way, and the arguments of the statement that writes it.

    `keys` is empty where each item's key is its id; then the statement is `ADD_MANY_NEW`, else `ADD_MANY`.
    """

    entries: Sequence[Entry[PackedWords]]
    columns: tuple[Any, ...]
    keys: tuple[Any, ...]
    users: frozenset[str]


def pack_batch(batch: Sequence[Entry[PackedWords]], calls: Iterable[Call]) -> Batch:
    """Return the batch, packed for the wire; `calls` has of each item the call that it belongs to."""
    entries = [_writable(new) for new in batch]
    writable = [(new, call) for new, call in zip(entries, calls, strict=False) if isinstance(new, IndexedInput)]
    news = [new for new, _ in writable]
    items = [new.item for new in news]
    vectors = [new.vector for new in news if new.vector is not None]
    columns = (
        told([call.app for _, call in writable]),
        [call.request_id for _, call in writable],
        inputs_to_json(items),
        [new.id for new in news],
        told([to_json(item.extensions) if item.model_extra else None for item in items]),
        [new.words.first for new in news],
        told([new.words.others for new in news]),
        pack_halfvecs(vectors) if vectors else [],
    )
    users = frozenset(item.user_id for item in items)
    if all(needs_no_note(new) for new in news):
        return Batch(entries, columns, (), users)
    keys = (
        [new.idempotency_key for new in news],
        [new.fingerprint for new in news],
        [key_hash(item.key) for item in items],
    )
    return Batch(entries, columns, keys, users)


def told(column: list[Any]) -> list[Any]:
    """Return the column, empty where there is nothing in it: PostgreSQL fills it up, and asyncpg looks at each None."""
    return [] if column.count(None) == len(column) else column


def needs_no_note(new: IndexedInput[PackedWords]) -> bool:
    """Say whether nothing is to be looked up for a memory: its key is its id, and it names no other record."""
    return new.has_own_id and not new.item.supersedes and new.item.key is None


async def insert(fetch: Fetch, batch: Batch, model: str | None, *, is_retry: bool) -> Written:
    """Write the batch in one statement, and return the record of each item; what was not written comes back itself."""
    if not batch.users:
        return batch.entries
    unkeyed = RETRY_MANY_NEW if is_retry else ADD_MANY_NEW
    statement = ADD_MANY if batch.keys else unkeyed
    writing = fetch(acting_for(*batch.users), statement, model, *batch.columns, *batch.keys)
    if len(batch.entries) <= _AT_ONCE:
        ((moments, is_complete),) = await writing
        records = _undated(batch.entries, model)
    else:
        ((moments, is_complete),), records = await gather_all(writing, _undated_records(batch.entries, model))
    if not is_complete:
        raise foreign()
    created = iter(moments or ())  # nothing is written where the store has another model
    written: list[Entry[PackedWords]] = []
    for new, record in zip(batch.entries, records, strict=True):
        moment = next(created, None) if isinstance(new, IndexedInput) else None
        written.append(new if moment is None else with_created_at(record, moment))
    return written


async def _undated_records(entries: Sequence[Entry[PackedWords]], model: str | None) -> list[Any]:
    """Make the records while the statement is sent and the database writes them."""
    outcomes: list[Any] = []
    for start in range(0, len(entries), _AT_ONCE):
        await asyncio.sleep(0)  # a large statement leaves in pieces, whenever the server has read the last one
        outcomes += _undated(entries[start : start + _AT_ONCE], model)
    return outcomes


def _undated(entries: Sequence[Entry[PackedWords]], model: str | None) -> list[Any]:
    return [record_without_date(new, model) if isinstance(new, IndexedInput) else new for new in entries]


async def add_one(fetch: Fetch, new: IndexedInput[PackedWords], model: str | None, call: Call) -> Added[PackedWords]:
    """Write a memory in one statement, and return its record; what was not written comes back itself."""
    item = new.item
    common = (model, *_pack_one(new, call))
    keys: tuple[Any, ...] = ()
    if needs_no_note(new):
        statement = queries.RETRY_NEW if call.is_retry else queries.ADD_NEW
    else:
        supersedes = [to_uuid(id) for id in item.supersedes]
        statement = queries.ADD_SUPERSEDING if supersedes else queries.ADD
        keys = (new.idempotency_key, new.fingerprint, supersedes, item.key, key_hash(item.key))
    rows = await fetch(acting_for(item.user_id), statement, *common, *keys)
    if not rows:
        return new
    if item.supersedes:
        check_owner(rows[0]["owners"], item.user_id)
        if len(rows[0]["owners"]) != len(item.supersedes):
            raise foreign()
    return with_created_at(record_without_date(new, model), rows[0][0])


def _pack_one(new: IndexedInput[PackedWords], call: Call) -> tuple[Any, ...]:
    """Return what the statements of a single add are given, behind the store's model."""
    item = new.item
    return (
        new.id,
        item.user_id,
        item.content,
        item.scope,
        item.tags,
        to_json(item.source.model_dump()) if item.source else None,
        item.confidence,
        item.valid_from,
        item.valid_to,
        to_json(item.extensions) if item.model_extra else None,
        *new.words,
        pack_halfvec(new.vector) if new.vector is not None else None,
        (item.source.app if item.source else None) or call.app,
        call.request_id,
    )


def _writable(new: Entry[PackedWords]) -> Entry[PackedWords]:
    """Return `new`, or the error of an item that supersedes what cannot exist."""
    if isinstance(new, IndexedInput) and not all(map(is_uuid, new.item.supersedes)):
        return NotFoundError("supersedes: no such memory")
    return new


def inputs_to_json(items: Sequence[MemoryInput]) -> str:
    """Return the fields of inputs whose length varies, as one JSON document."""
    if all(item.model_fields_set <= _BARE for item in items):  # in a fraction of the time
        return to_json([{"content": item.content, "user_id": item.user_id} for item in items])
    return to_json([_told_fields(vars(item)) for item in items])


def _told_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an input as JSON has them, without those that are absent."""
    told: dict[str, Any] = {}
    told.update((name, value) for name, value in fields.items() if value or value == 0)
    if (source := told.get("source")) is not None:
        told["source"] = source.model_dump()
    for name in told.keys() & _MOMENTS:
        told[name] = told[name].isoformat()
    return told
