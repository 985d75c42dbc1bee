"""`add_many`: a whole batch, packed for one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple, TypeAlias, TypeVar

from pydantic import TypeAdapter

from openproto.errors import NotFoundError, OpenProtoError
from openproto.fanout import gather_all
from openproto.ids import parse_id
from openproto.models import MemoryRecord
from openproto.provider import Call
from openproto.requests import MemoryInput
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedInput
from openproto_adapters.postgres import queries
from openproto_adapters.postgres.records import foreign, key_hash, record_without_date, with_created_at
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec, pack_halfvecs

W = TypeVar("W")

_AT_ONCE = 50
"""Records that are made before the event loop gets its turn."""


Entry: TypeAlias = IndexedInput[W] | MemoryRecord | OpenProtoError
"""An item ready to be written, the record that says the same, or why it is refused."""


Written: TypeAlias = Sequence[Entry[PackedWords]]
Fetch: TypeAlias = Callable[..., Awaitable[Any]]


class Batch(NamedTuple):
    """A batch on its way, and the arguments of the statement that writes it.

    `keys` is empty where each item's key is its id; then the statement is `queries.ADD_MANY_NEW`, else `ADD_MANY`.
    """

    entries: Sequence[Entry[PackedWords]]
    columns: tuple[Any, ...]
    keys: tuple[Any, ...]
    users: frozenset[str]


def pack_batch(batch: Sequence[Entry[PackedWords]]) -> Batch:
    """Return the batch, packed for the wire."""
    entries = [_writable(new) for new in batch]
    writable = [new for new in entries if isinstance(new, IndexedInput)]
    items = [new.item for new in writable]
    users = frozenset(item.user_id for item in items)
    vectors = [new.vector for new in writable if new.vector is not None]
    columns = (
        inputs_to_json(items),
        [new.id for new in writable],
        [to_json(item.extensions) if item.model_extra else None for item in items],
        [new.words.first for new in writable],
        [new.words.others for new in writable],
        pack_halfvecs(vectors) if vectors else [None] * len(items),
    )
    if all(new.has_own_id and not new.item.supersedes and new.item.key is None for new in writable):
        return Batch(entries, columns, (), users)
    keys = (
        [new.idempotency_key for new in writable],
        [new.fingerprint for new in writable],
        [key_hash(item.key) for item in items],
    )
    return Batch(entries, columns, keys, users)


async def insert(fetch: Fetch, batch: Batch, model: str | None, call: Call) -> Written:
    """Write the batch in one statement, and return the record of each item; what was not written comes back itself."""
    if not batch.users:
        return batch.entries
    unkeyed = queries.RETRY_MANY_NEW if call.is_retry else queries.ADD_MANY_NEW
    statement = queries.ADD_MANY if batch.keys else unkeyed
    ((ids, moments, is_complete),), records = await gather_all(
        fetch(acting_for(*batch.users), statement, model, call.app, call.request_id, *batch.columns, *batch.keys),
        _undated_records(batch.entries, model),
    )
    if not is_complete:
        raise foreign()
    created: dict[str, datetime] = dict(zip(ids or (), moments or (), strict=True))
    return [
        with_created_at(record, created[new.id]) if isinstance(new, IndexedInput) and new.id in created else new
        for new, record in zip(batch.entries, records, strict=True)
    ]


async def _undated_records(entries: Sequence[Entry[PackedWords]], model: str | None) -> list[Any]:
    """Make the records while the statement is sent and the database writes them."""
    outcomes: list[Any] = []
    for start in range(0, len(entries), _AT_ONCE):
        await asyncio.sleep(0)  # a large statement leaves in pieces, whenever the server has read the last one
        part = entries[start : start + _AT_ONCE]
        outcomes += [record_without_date(new, model) if isinstance(new, IndexedInput) else new for new in part]
    return outcomes


def pack_one(new: IndexedInput[PackedWords], call: Call) -> tuple[Any, ...]:
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
    if isinstance(new, IndexedInput) and any(parse_id(id) is None for id in new.item.supersedes):
        return NotFoundError("supersedes: no such memory")
    return new


def inputs_to_json(items: Sequence[MemoryInput]) -> str:
    """Return the fields of inputs whose length varies, as one JSON document."""
    return _items().dump_json([*items]).decode()


@cache
def _items() -> TypeAdapter[list[MemoryInput]]:
    return TypeAdapter(list[MemoryInput])
