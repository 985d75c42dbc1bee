"""Adding to the file: one memory, of which something is to be looked up, or many, of which nothing is.

Like `statements.py`, these are functions inside the transaction that the caller holds. Rows go to the file a table at a
time, which takes a fraction of the time that a memory at a time does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from openproto.errors import ConflictError, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.models import MemoryRecord, PutResult
from openproto.provider import Outcomes, is_fresh
from openproto.requests import Filters, MemoryInput, RecordRef
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.compact_json import to_json
from openproto.stores.duplicates import decide
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto_adapters.sqlite import statements
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import from_micros, pack_embedding, to_micros, to_record
from openproto_adapters.sqlite.searching import tokens
from openproto_adapters.sqlite.selection import Parameters, own, selection
from openproto_adapters.sqlite.supersession import release, supersede

New: TypeAlias = IndexedInput[list[int]]
AuditOf: TypeAlias = Callable[[New], AuditRow]

MOST_COMPARED = 40
"""How many words of a text find what may be the same; the texts themselves are compared afterwards."""

LAST_NUMBER = "SELECT coalesce(max(number), 0) FROM main.memories"
INSERT = """INSERT INTO main.memories (number, id, user_id, content, scope, tags, source, confidence, valid_from,
        starts_by_handover, valid_to, supersedes, extensions, embedding, created_at, updated_at, key, version)
    VALUES (:number, :id, :user_id, :content, :scope, :tags, :source, :confidence, :valid_from, :starts_by_handover,
        :valid_to, :supersedes, :extensions, :embedding, :created_at, :updated_at, :key, :version)"""
INSERT_KEY = "INSERT INTO main.keys (user_id, idempotency_key, memory_id, fingerprint) VALUES (?, ?, ?, ?)"
INSERT_WORDS = "INSERT INTO words (rowid, terms) VALUES (?, ?)"

LAST_CHANGE = "SELECT coalesce(max(seq), 0) FROM changes WHERE user_id = :user_id"
INSERT_CHANGE = "INSERT INTO changes (user_id, seq, number) VALUES (?, ?, ?)"
TRIM_CHANGES = "DELETE FROM changes WHERE user_id = :user_id AND seq <= :seq - 500"

WRITTEN_BEFORE = "SELECT memory_id, fingerprint FROM keys WHERE user_id = :user_id AND idempotency_key = :key"
ADDED_BEFORE = "SELECT 1 FROM audit WHERE user_id = :user_id AND action = 'add' AND memory_id = :id"
REPLACED = """content = :content, scope = :scope, tags = :tags, source = :source, confidence = :confidence,
    valid_from = :valid_from, starts_by_handover = :starts_by_handover, valid_to = :valid_to,
    supersedes = :supersedes, extensions = :extensions, embedding = :embedding, next_embedding = NULL"""
HOLDING = " AND number IN (SELECT rowid FROM words WHERE words MATCH :terms)"


def add(db: Connection, new: New, audit_of: AuditOf, model: str | None) -> MemoryRecord:
    """Write a memory, its words, its audit entry, and what it supersedes; or return what its key wrote before."""
    db.act_for(new.item.user_id)
    if not is_fresh(new.idempotency_key) and (before := _written_before(db, new)) is not None:
        return before
    if new.item.on_duplicate != "keep":
        decided = decide(new.item, _candidates(db, new))
        if isinstance(decided, MemoryRecord):
            return decided
        new = new._replace(item=decided)
    item = new.item
    if item.key is not None and statements.by_key(db, item.user_id, item.key) is not None:
        raise ConflictError("key: another record of this user bears it; put() replaces that record")
    (record,) = _write(db, [new], audit_of, model)
    if not new.has_own_id:
        db.execute(INSERT_KEY, (item.user_id, new.idempotency_key, new.id, new.fingerprint))
    return record


def add_many(db: Connection, batch: IndexedBatch[list[int]], audit_of: AuditOf, model: str | None) -> Outcomes:
    """Write the memories in their order; one that is refused leaves the others alone."""
    outcomes: Outcomes = []
    waiting: list[New] = []

    def write_waiting() -> None:
        outcomes.extend(_write(db, waiting, audit_of, model))
        waiting.clear()

    for new in batch:
        if isinstance(new, IndexedInput) and _needs_no_look(new):
            waiting.append(new)
            continue
        write_waiting()
        # `add` refuses before it writes: an item that fails leaves nothing behind.
        try:
            outcomes.append(new if isinstance(new, OpenProtoError) else add(db, new, audit_of, model))
        except OpenProtoError as error:
            outcomes.append(error)
    write_waiting()
    return outcomes


def put(db: Connection, new: New, if_version: str | None, audit_of: AuditOf, model: str | None) -> PutResult:
    """Write the record of the input's key: create it, or replace all its fields but its id and `created_at`."""
    item = new.item
    db.act_for(item.user_id)
    before = statements.by_key(db, item.user_id, item.key)
    if before is None:
        if if_version not in (None, "absent"):
            raise statements.stale()
        return PutResult(record=add(db, new, audit_of, model), created=True)
    if before.id in item.supersedes:
        raise InvalidRequestError("supersedes: a record cannot supersede itself")
    now = statements.now()
    release(db, before.id, item.user_id, before.supersedes)
    _hand_over(db, before.id, item, now)
    ref = RecordRef(id=before.id, user_id=item.user_id, if_version=if_version)
    statements.change_row(db, ref, REPLACED, fields_of(item, new, now) | {"now": now})
    statements.change_words(db, before.id, item.user_id, new.words)
    statements.write_audit(db, [audit_of(new)._replace(action="update", memory_id=before.id)])
    return PutResult(record=statements.get(db, ref), created=False)


def insert(db: Connection, rows: Sequence[tuple[New, Parameters]]) -> None:
    """Write the rows of memories, their words, and that they are new."""
    ((last,),) = db.execute(LAST_NUMBER).fetchall()
    memories: list[Parameters] = []
    words: list[tuple[int, str]] = []
    of_user: dict[str, list[int]] = {}
    for number, (new, fields) in enumerate(rows, last + 1):
        user_id = new.item.user_id
        who = {"number": number, "id": new.id, "user_id": user_id, "key": new.item.key}
        memories.append(fields | who)
        words.append((number, tokens(user_id, new.words)))
        of_user.setdefault(user_id, []).append(number)
    db.executemany(INSERT, memories)
    db.executemany(INSERT_WORDS, words)
    for user_id, numbers in of_user.items():
        ((before,),) = db.execute(LAST_CHANGE, {"user_id": user_id}).fetchall()
        db.executemany(INSERT_CHANGE, ((user_id, seq, number) for seq, number in enumerate(numbers, before + 1)))
        if (seq := before + len(numbers)) // 100 > before // 100:
            db.execute(TRIM_CHANGES, {"user_id": user_id, "seq": seq})


def fields_of(item: MemoryInput, new: IndexedInput[Any], now: int) -> Parameters:
    """Return the columns that an input fills; without a valid_from, a successor holds from `now` on."""
    starts_by_handover = item.valid_from is None and bool(item.supersedes)
    return {
        "content": item.content,
        "scope": item.scope,
        "tags": to_json(item.tags) if item.tags else "[]",
        "source": to_json(item.source.model_dump()) if item.source else None,
        "confidence": item.confidence,
        "valid_from": now if starts_by_handover else to_micros(item.valid_from),
        "starts_by_handover": starts_by_handover,
        "valid_to": to_micros(item.valid_to),
        "supersedes": to_json(item.supersedes) if item.supersedes else "[]",
        "extensions": to_json(item.extensions) if item.model_extra else "{}",
        "embedding": pack_embedding(new.vector) if new.vector is not None else None,
    }


def new_version() -> str:
    """Return another version for each state of each record."""
    return os.urandom(8).hex()


def _hand_over(db: Connection, id: str, item: MemoryInput, now: int) -> None:
    moment = now if item.valid_from is None else to_micros(item.valid_from)
    supersede(db, id, item.user_id, item.supersedes, moment)


def _write(db: Connection, news: Sequence[New], audit_of: AuditOf, model: str | None) -> list[MemoryRecord]:
    """Write new memories and what they supersede, and return their records."""
    rows: list[tuple[New, Parameters]] = []
    records: list[MemoryRecord] = []
    for new in news:
        now, version = statements.now(), new_version()
        _hand_over(db, new.id, new.item, now)
        more = {"created_at": now, "updated_at": None, "version": version}
        rows.append((new, fields_of(new.item, new, now) | more))
        records.append(new.record(model, version, from_micros(now)))
    if rows:
        insert(db, rows)
        statements.write_audit(db, map(audit_of, news))
    return records


def _needs_no_look(new: New) -> bool:
    item = new.item
    return is_fresh(new.idempotency_key) and item.on_duplicate == "keep" and item.key is None and not item.supersedes


def _candidates(db: Connection, new: New) -> list[MemoryRecord]:
    """Return the current records that hold the words of the input, newest first."""
    where, parameters = selection(Filters(user_id=new.item.user_id), datetime.now(UTC))
    if new.words:
        where += HOLDING
        parameters["terms"] = tokens(new.item.user_id, new.words[:MOST_COMPARED])
    rows = db.execute(statements.LIST.format(where=where), parameters | {"limit": -1}).fetchall()
    return [own(to_record(row), new.item.user_id) for row in rows]


def _written_before(db: Connection, new: New) -> MemoryRecord | None:
    """Return what the key wrote before, if it did; ConflictError for another input or a memory that is gone."""
    who = {"user_id": new.item.user_id, "key": new.idempotency_key, "id": new.id}
    known = db.execute(WRITTEN_BEFORE, who).fetchone()
    if known is None and not (new.has_own_id and db.execute(ADDED_BEFORE, who).fetchone()):
        return None
    if known is not None and known[1] != new.fingerprint:
        raise ConflictError("idempotency_key: was used before with another input; use a new key")
    try:
        return statements.get(db, RecordRef(id=known[0] if known else new.id, user_id=new.item.user_id))
    except NotFoundError:
        raise ConflictError(
            "idempotency_key: belongs to a memory that was deleted since; use a new key, or restore()"
        ) from None
