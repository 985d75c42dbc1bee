"""Adding to the file: one memory, of which something is to be looked up, or many, of which nothing is.

Like `statements.py`, these are functions inside the transaction that the caller holds. Rows go to the file a table at a
time, which takes a fraction of the time that a memory at a time does.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

from openproto.errors import ConflictError, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.models import MemoryRecord, PutResult
from openproto.provider import Call, Outcomes, current_call, is_fresh
from openproto.requests import Filters, MemoryInput, RecordRef
from openproto.stores.audit_buffer import AuditRow, audit_row
from openproto.stores.compact_json import to_json
from openproto.stores.duplicates import decide
from openproto.stores.indexer import IndexedInput
from openproto_adapters.sqlite import statements, word_index
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import COLUMNS, from_micros, pack_embedding, to_micros, to_record
from openproto_adapters.sqlite.selection import own, selection
from openproto_adapters.sqlite.supersession import release, supersede

New: TypeAlias = IndexedInput[None]
Asked: TypeAlias = tuple[New | OpenProtoError, Call]
"""What is to be added, or why it cannot be, and the call that asks for it."""

MOST_COMPARED = 40
"""How many words of a text find what may be the same; the texts themselves are compared afterwards."""

HOLDING = f"""SELECT {COLUMNS} FROM {word_index.HOLDING} CROSS JOIN memories ON number = holding
    WHERE {{where}} ORDER BY created_at DESC, id DESC"""
INSERT_KEY = "INSERT INTO main.keys (user_id, idempotency_key, memory_id, fingerprint) VALUES (?, ?, ?, ?)"

LAST_CHANGE = "SELECT coalesce(max(seq), 0) FROM changes WHERE user_id = :user_id"

WRITTEN_BEFORE = "SELECT memory_id, fingerprint FROM keys WHERE user_id = :user_id AND idempotency_key = :key"
ADDED_BEFORE = "SELECT 1 FROM audit WHERE user_id = :user_id AND action = 'add' AND memory_id = :id"
FIELDS = (
    "content", "scope", "tags", "source", "confidence", "valid_from", "starts_by_handover", "valid_to", "supersedes",
    "extensions", "embedding", "version", "created_at", "updated_at",
)  # fmt: skip
"""The columns that an input fills, next to those that say whose it is."""
REPLACED = ", ".join(f"{name} = :{name}" for name in FIELDS[:-3]) + ", next_embedding = NULL"


def add(db: Connection, new: New, call: Call, model: str | None) -> MemoryRecord:
    """Write a memory, its words, its audit entry, and what it supersedes; or return what its key wrote before."""
    db.act_for(new.item.user_id)
    if not is_fresh(new.idempotency_key, call) and (before := _written_before(db, new)) is not None:
        return before
    if new.item.on_duplicate != "keep":
        decided = decide(new.item, _candidates(db, new))
        if isinstance(decided, MemoryRecord):
            return decided
        new = new._replace(item=decided)
    item = new.item
    if item.key is not None and statements.by_key(db, item.user_id, item.key) is not None:
        raise ConflictError("key: another record of this user bears it; put() replaces that record")
    (record,) = _write(db, [(new, call)], model)
    if not new.has_own_id:
        db.execute(INSERT_KEY, (item.user_id, new.idempotency_key, new.id, new.fingerprint))
    return record


def add_many(db: Connection, batch: Sequence[Asked], model: str | None) -> Outcomes:
    """Write the memories in their order; one that is refused leaves the others alone."""
    outcomes: Outcomes = []
    waiting: list[tuple[New, Call]] = []

    def write_waiting() -> None:
        outcomes.extend(_write(db, waiting, model))
        waiting.clear()

    for new, call in batch:
        if isinstance(new, IndexedInput) and _needs_no_look(new, call):
            waiting.append((new, call))
            continue
        write_waiting()
        # `add` refuses before it writes: an item that fails leaves nothing behind.
        try:
            outcomes.append(new if isinstance(new, OpenProtoError) else add(db, new, call, model))
        except OpenProtoError as error:
            outcomes.append(error)
    write_waiting()
    return outcomes


def put(db: Connection, new: New, if_version: str | None, model: str | None) -> PutResult:
    """Write the record of the input's key: create it, or replace all its fields but its id and `created_at`."""
    item = new.item
    db.act_for(item.user_id)
    before = statements.by_key(db, item.user_id, item.key)
    if before is None:
        if if_version not in (None, "absent"):
            raise statements.stale()
        return PutResult(record=add(db, new, current_call.get(), model), created=True)
    if before.id in item.supersedes:
        raise InvalidRequestError("supersedes: a record cannot supersede itself")
    now = statements.now()
    release(db, before.id, item.user_id, before.supersedes)
    _hand_over(db, before.id, item, now)
    ref = RecordRef(id=before.id, user_id=item.user_id, if_version=if_version)
    fields = dict(zip(FIELDS, fields_of(new, now, version="", created_at=now), strict=True))
    statements.change_row(db, ref, REPLACED, fields | {"now": now})
    statements.change_words(db, before.id, item.user_id)
    app = item.source.app if item.source else None
    entry = audit_row(item.user_id, memory_id=before.id, scope=item.scope, app=app)
    statements.write_audit(db, [entry._replace(action="update")])
    return PutResult(record=statements.get(db, ref), created=False)


def insert(db: Connection, rows: Sequence[tuple[New, Sequence[Any]]]) -> None:
    """Write the rows of memories, given as their `FIELDS`, their words, and that they are new."""
    numbers = word_index.new_numbers(db, len(rows))
    users = [new.item.user_id for new, _ in rows]
    of_user: dict[str, list[int]] = {}
    for number, user_id in zip(numbers, users, strict=True):
        of_user.setdefault(user_id, []).append(number)
    who = {"number": numbers, "id": [new.id for new, _ in rows], "user_id": users}
    keys = {"key": [new.item.key for new, _ in rows]}
    fields = zip(*(fields for _, fields in rows), strict=True)
    db.insert("main.memories", who | keys | dict(zip(FIELDS, fields, strict=True)))
    for user_id, its in of_user.items():
        ((before,),) = db.execute(LAST_CHANGE, {"user_id": user_id}).fetchall()
        after = range(before + 1, before + 1 + len(its))
        db.insert("changes", {"user_id": [user_id] * len(its), "seq": after, "number": its})
    word_index.add(db, numbers, [(new.item.user_id, new.item.content) for new, _ in rows])


def fields_of(
    new: IndexedInput[Any], now: int, *, version: str, created_at: int, updated_at: int | None = None
) -> tuple[Any, ...]:
    """Return the `FIELDS` of an input; without a valid_from, a successor holds from `now` on."""
    item = new.item
    starts_by_handover, extensions = item.valid_from is None and bool(item.supersedes), item.extensions
    return (
        item.content,
        item.scope,
        to_json(item.tags) if item.tags else "[]",
        to_json(item.source.model_dump()) if item.source else None,
        item.confidence,
        now if starts_by_handover else to_micros(item.valid_from),
        int(starts_by_handover),
        to_micros(item.valid_to),
        to_json(item.supersedes) if item.supersedes else "[]",
        to_json(extensions) if extensions else "{}",
        pack_embedding(new.vector) if new.vector is not None else None,
        version,
        created_at,
        updated_at,
    )


def new_versions(count: int) -> list[str]:
    """Return another version for each state of each record."""
    bits = os.urandom(8 * count).hex()
    return [bits[start : start + 16] for start in range(0, len(bits), 16)]


def _hand_over(db: Connection, id: str, item: MemoryInput, now: int) -> None:
    moment = now if item.valid_from is None else to_micros(item.valid_from)
    supersede(db, id, item.user_id, item.supersedes, moment)


def _write(db: Connection, news: Sequence[tuple[New, Call]], model: str | None) -> list[MemoryRecord]:
    """Write new memories and what they supersede, all at one moment, and return their records."""
    now = statements.now()
    moment = from_micros(now)
    rows: list[tuple[New, Sequence[Any]]] = []
    audit: list[AuditRow] = []
    records: list[MemoryRecord] = []
    for (new, call), version in zip(news, new_versions(len(news)), strict=True):
        item = new.item
        if item.supersedes:
            _hand_over(db, new.id, item, now)
        rows.append((new, fields_of(new, now, version=version, created_at=now)))
        app = (item.source.app if item.source else None) or call.app
        audit.append(AuditRow(item.user_id, moment, app, call.verb, new.id, item.scope, call.request_id))
        records.append(new.record(model, version, moment))
    if rows:
        statements.write_audit(db, audit)
        insert(db, rows)
    return records


def _needs_no_look(new: New, call: Call) -> bool:
    item = new.item
    return (
        is_fresh(new.idempotency_key, call) and item.on_duplicate == "keep" and item.key is None and not item.supersedes
    )


def _candidates(db: Connection, new: New) -> list[MemoryRecord]:
    """Return the current records that hold the words of the input, newest first."""
    where, parameters = selection(Filters(user_id=new.item.user_id), datetime.now(UTC))
    statement = statements.LIST
    if terms := word_index.terms_of(new.item.user_id, new.item.content)[: 8 * MOST_COMPARED]:
        statement = HOLDING
        parameters |= {"terms": word_index.spelled(terms), "first": terms[:8]}
    rows = db.execute(statement.format(where=where), parameters | {"limit": -1}).fetchall()
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
