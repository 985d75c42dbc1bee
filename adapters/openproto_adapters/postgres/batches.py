"""The arguments of `add_many`: a whole batch, packed for one statement."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from openproto.errors import NotFoundError, OpenProtoError
from openproto.ids import parse_id
from openproto.provider import Call, Outcomes
from openproto.requests import MemoryInput
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto_adapters.postgres.records import key_hash, record_without_date, to_json
from openproto_adapters.postgres.vectors import PackedWords, pack_halfvec, pack_halfvecs

_AT_ONCE = 50
"""Records that are made before the event loop gets its turn."""


class Batch(NamedTuple):
    """A batch on its way: each item ready to be written or refused, and the arguments of the statement that writes it.

    `keys` is empty where each item's key is its id; then the statement is `queries.ADD_MANY_NEW`, else `ADD_MANY`.
    """

    entries: IndexedBatch[PackedWords]
    columns: tuple[Any, ...]
    keys: tuple[Any, ...]


def pack_batch(batch: IndexedBatch[PackedWords]) -> Batch:
    """Return the batch, packed for the wire."""
    entries = [_writable(new) for new in batch]
    writable = [new for new in entries if isinstance(new, IndexedInput)]
    items = [new.item for new in writable]
    vectors = [new.vector for new in writable if new.vector is not None]
    columns = (
        _items().dump_json(items).decode(),
        [new.id for new in writable],
        [to_json(item.extensions) if item.model_extra else None for item in items],
        [new.words.first for new in writable],
        [new.words.others for new in writable],
        pack_halfvecs(vectors) if vectors else [None] * len(items),
    )
    if all(new.has_own_id and not new.item.supersedes and new.item.key is None for new in writable):
        return Batch(entries, columns, ())
    keys = (
        [new.idempotency_key for new in writable],
        [new.fingerprint for new in writable],
        [key_hash(item.key) for item in items],
    )
    return Batch(entries, columns, keys)


async def undated_records(entries: IndexedBatch[PackedWords], model: str | None) -> Outcomes:
    """Make the records while the statement is sent and the database writes them."""
    outcomes: Outcomes = []
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


def _writable(new: IndexedInput[PackedWords] | OpenProtoError) -> IndexedInput[PackedWords] | OpenProtoError:
    """Return `new`, or the error of an item that supersedes what cannot exist."""
    if isinstance(new, IndexedInput) and any(parse_id(id) is None for id in new.item.supersedes):
        return NotFoundError("supersedes: no such memory")
    return new


@cache
def _items() -> TypeAdapter[list[MemoryInput]]:
    return TypeAdapter(list[MemoryInput])
