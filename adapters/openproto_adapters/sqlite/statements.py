"""What each verb does to the file: functions over one connection, inside the transaction that the caller holds."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any, TypeAlias

from openproto.embedding import Vector
from openproto.errors import ConflictError, InvalidRequestError, NotFoundError
from openproto.models import AuditEntry, MemoryPage, MemoryRecord, SearchResult
from openproto.requests import (
    AuditQuery,
    Filters,
    ListQuery,
    MemoryUpdate,
    RecordRef,
    SearchQuery,
    check_validity,
)
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.indexer import IndexedInput, IndexedQuery, IndexedText, StoredModel
from openproto.stores.ranking import CENTERING_HALF_LIFE, CENTERING_SAMPLE, ScoreWeights, coverage, fuse
from openproto_adapters.sqlite.database import Connection
from openproto_adapters.sqlite.records import COLUMNS, from_micros, pack_embedding, to_json, to_micros, to_record

Parameters: TypeAlias = dict[str, Any]


def stored_model(db: Connection) -> StoredModel:
    """Return what the file was built with."""
    model, dim = db.execute("SELECT model, dim FROM store").fetchone()
    (has_memories,) = db.execute("SELECT EXISTS (SELECT 1 FROM memories)").fetchone()
    return StoredModel(model, dim, bool(has_memories))


def adopt_model(db: Connection, model: str | None, dim: int | None) -> StoredModel:
    """Give an empty file its model, and return what the file has then: another process may have been first."""
    if not (before := stored_model(db)).has_memories and before.model is None:
        db.execute("UPDATE store SET model = ?, dim = ?", (model, dim))
    return stored_model(db)


def add(db: Connection, new: IndexedInput[list[int]], audit: AuditRow) -> MemoryRecord:
    """Write a memory, its words, its audit entry, and what it supersedes; or return what its key wrote before."""
    item = new.item
    if (before := _written_before(db, new)) is not None:
        return before
    now = _now()
    _supersede(db, new.id, item.user_id, item.supersedes, now)
    number = db.execute(
        """INSERT INTO memories (id, user_id, content, scope, tags, source, confidence, valid_from, valid_to,
               supersedes, extensions, embedding, created_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            new.id,
            item.user_id,
            item.content,
            item.scope,
            to_json(item.tags),
            to_json(item.source.model_dump()) if item.source else None,
            item.confidence,
            to_micros(item.valid_from),
            to_micros(item.valid_to),
            to_json(item.supersedes),
            to_json(item.extensions),
            pack_embedding(new.vector) if new.vector is not None else None,
            now,
        ),
    ).lastrowid
    db.execute(
        "INSERT INTO keys (user_id, idempotency_key, memory_id, fingerprint) VALUES (?, ?, ?, ?)",
        (item.user_id, new.idempotency_key, new.id, new.fingerprint),
    )
    db.execute("INSERT INTO words (rowid, terms) VALUES (?, ?)", (number, _tokens(item.user_id, new.words)))
    write_audit(db, [audit])
    return get(db, RecordRef(id=new.id))


def get(db: Connection, ref: RecordRef) -> MemoryRecord:
    """Return the record; another user's is as unknown as one that never was."""
    row = db.execute(
        f"SELECT {COLUMNS} FROM memories WHERE id = ? AND user_id = coalesce(?, user_id)",
        (ref.id, ref.user_id),
    ).fetchone()
    if row is None:
        raise NotFoundError("no such memory")
    return to_record(row)


def update(db: Connection, ref: RecordRef, change: MemoryUpdate, new: IndexedText[list[int]] | None) -> MemoryRecord:
    """Apply the changes; the words and the vector follow the content."""
    before = get(db, ref)
    changes = change.changes
    try:
        check_validity(before.valid_from, changes.get("valid_to"))
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    now = _now()
    columns: Parameters = {"updated_at": now}
    columns |= {name: changes[name] for name in ("scope", "confidence") if name in changes}
    if "valid_to" in changes:
        columns["valid_to"] = to_micros(changes["valid_to"])
    if "tags" in changes:
        columns["tags"] = to_json(changes["tags"] or [])
    if "supersedes" in changes:
        columns["supersedes"] = to_json(_change_supersedes(db, before, changes["supersedes"], now))
    if "source" in changes:
        columns["source"] = to_json(changes["source"].model_dump()) if changes["source"] else None
    if change.extensions:
        columns["extensions"] = to_json(change.changed_extensions(before.extensions))
    if new is not None:
        columns |= {
            "content": changes["content"],
            "embedding": pack_embedding(new.vector) if new.vector is not None else None,
            "next_embedding": None,
        }
        db.execute(
            "UPDATE words SET terms = ? WHERE rowid = (SELECT number FROM memories WHERE id = ?)",
            (_tokens(before.user_id, new.words), ref.id),
        )
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    db.execute(f"UPDATE memories SET {assignments} WHERE id = :id", {**columns, "id": ref.id})
    return get(db, ref)


def delete(db: Connection, filters: str, parameters: Parameters) -> list[tuple[str, str]]:
    """Remove the memories that the filters select, but not their keys, and return each (id, user_id)."""
    chosen = db.execute(f"SELECT number, id, user_id FROM memories WHERE {filters}", parameters).fetchall()
    db.executemany("DELETE FROM words WHERE rowid = ?", ((number,) for number, *_ in chosen))
    db.executemany("DELETE FROM memories WHERE number = ?", ((number,) for number, *_ in chosen))
    return [(id, user_id) for _, id, user_id in chosen]


def list_page(db: Connection, query: ListQuery) -> MemoryPage:
    """Return one page, newest first, starting after the cursor's record."""
    where, parameters = selection(query, query.as_of)
    parameters |= {"since": to_micros(query.since), "until": to_micros(query.until), "limit": query.limit + 1}
    where += " AND created_at >= coalesce(:since, created_at) AND created_at <= coalesce(:until, created_at)"
    if position := decode_cursor(query):
        where += " AND (created_at, id) < (:after, :after_id)"
        parameters |= {"after": to_micros(position[0]), "after_id": position[1]}
    rows = db.execute(
        f"SELECT {COLUMNS} FROM memories WHERE {where} ORDER BY created_at DESC, id DESC LIMIT :limit",
        parameters,
    ).fetchall()
    items = [to_record(row) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    return MemoryPage(
        items=items, next_cursor=encode_cursor(query, items[-1].created_at, items[-1].id) if more else None
    )


def search(
    db: Connection, query: SearchQuery, indexed: IndexedQuery, weights: ScoreWeights, now: datetime
) -> list[SearchResult]:
    """Score every current record that the filters select (openproto.stores.ranking has the formula)."""
    where, parameters = selection(query, query.as_of or now)
    eligible = dict(db.execute(f"SELECT number, embedding FROM memories WHERE {where}", parameters))
    (count,) = db.execute("SELECT count(*) FROM memories WHERE user_id = ?", (query.user_id,)).fetchone()
    postings, variants = ([_posting(db, query.user_id, term) for term in terms] for terms in indexed.terms)
    covered = {number: share for number, share in coverage(count, postings, variants).items() if number in eligible}
    recent = _recent_embeddings(db, query.user_id) if weights.center_query else []
    cosines = _cosines(eligible, indexed.vector, recent)
    # Words alone are the whole score where there are no vectors to weigh them against.
    scores = fuse(cosines, covered, weights.text_weight) if indexed.vector is not None else covered
    best = sorted(scores, key=lambda number: (scores[number], number), reverse=True)[: query.limit]
    return [
        SearchResult(memory=_by_number(db, number), score=scores[number])
        for number in best
        if scores[number] >= (query.min_score or 0.0)
    ]


def list_audit(db: Connection, query: AuditQuery) -> list[AuditEntry]:
    """Return the user's audit entries, newest first."""
    rows = db.execute(
        """SELECT timestamp, action, user_id, app, memory_id, scope, request_id FROM audit
           WHERE user_id = :user_id AND (:app IS NULL OR app = :app) AND (:id IS NULL OR memory_id = :id)
             AND timestamp >= coalesce(:since, timestamp)
           ORDER BY timestamp DESC, number DESC LIMIT :limit""",
        {
            "user_id": query.user_id,
            "app": query.app,
            "id": query.memory_id,
            "since": to_micros(query.since),
            "limit": query.limit,
        },
    )
    names = ("timestamp", "action", "user_id", "app", "memory_id", "scope", "request_id")
    return [AuditEntry(**{**dict(zip(names, row, strict=True)), "timestamp": from_micros(row[0])}) for row in rows]


def write_audit(db: Connection, rows: Iterable[AuditRow]) -> None:
    """Append audit entries."""
    db.executemany(
        """INSERT INTO audit (user_id, timestamp, app, action, memory_id, scope, request_id)
           VALUES (?, ?, ?, ?, ?, ?, ?)""",
        (
            (
                row.user_id,
                to_micros(row.timestamp),
                row.app,
                row.action,
                row.memory_id,
                row.scope,
                row.request_id,
            )
            for row in rows
        ),
    )


def selection(filters: Filters, as_of: datetime | None) -> tuple[str, Parameters]:
    """Return the WHERE clause, and its parameters, for the filters and, where given, the moment of validity."""
    where = "user_id = :user_id"
    parameters: Parameters = {"user_id": filters.user_id}
    if filters.scope is not None:
        # Compared as text, never as a pattern: `_` and `%` are ordinary characters of a scope.
        where += " AND (scope = :scope OR substr(scope, 1, length(:scope) + 1) = :scope || '/')"
        parameters["scope"] = filters.scope
    for number, tag in enumerate(filters.tags):
        where += f" AND EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag{number})"
        parameters[f"tag{number}"] = tag
    if as_of is not None:
        where += """ AND (valid_from IS NULL OR valid_from <= :as_of) AND (valid_to IS NULL OR valid_to > :as_of)
            AND (superseded_at IS NULL OR superseded_at > :as_of)"""
        parameters["as_of"] = to_micros(as_of)
    return where, parameters


def _written_before(db: Connection, new: IndexedInput[list[int]]) -> MemoryRecord | None:
    """Return what the key wrote before, if it did; ConflictError for another input or a memory that is gone."""
    known = db.execute(
        "SELECT memory_id, fingerprint FROM keys WHERE user_id = ? AND idempotency_key = ?",
        (new.item.user_id, new.idempotency_key),
    ).fetchone()
    if known is None:
        return None
    if known[1] != new.fingerprint:
        raise ConflictError("idempotency_key: was used before with another input")
    try:
        return get(db, RecordRef(id=known[0]))
    except NotFoundError:
        raise ConflictError("idempotency_key: belongs to a memory that was deleted since; use a new key") from None


def _supersede(db: Connection, id: str, user_id: str, old_ids: Sequence[str], now: int) -> None:
    """Mark `old_ids` as superseded by `id`; NotFoundError, before any change, where one is not the user's."""
    for old_id in old_ids:
        get(db, RecordRef(id=old_id, user_id=user_id))
    db.executemany(
        "UPDATE memories SET superseded_by = ?, superseded_at = coalesce(superseded_at, ?) WHERE id = ?",
        ((id, now, old_id) for old_id in old_ids),
    )


def _change_supersedes(db: Connection, record: MemoryRecord, wanted: list[str] | None, now: int) -> list[str]:
    """Append `wanted` to what `record` supersedes, or clear it all where it is None; return the new list."""
    if wanted is not None:
        _supersede(db, record.id, record.user_id, wanted, now)
        return list(dict.fromkeys([*record.supersedes, *wanted]))
    for old_id in record.supersedes:
        # Another record may supersede it as well: then it stays superseded, by the newest of those.
        other = db.execute(
            """SELECT id FROM memories WHERE user_id = ? AND id <> ?
                 AND EXISTS (SELECT 1 FROM json_each(supersedes) WHERE value = ?)
               ORDER BY created_at DESC, id DESC LIMIT 1""",
            (record.user_id, record.id, old_id),
        ).fetchone()
        db.execute(
            "UPDATE memories SET superseded_by = :by, superseded_at = CASE WHEN :by IS NULL THEN NULL "
            "ELSE superseded_at END WHERE id = :id AND user_id = :user_id AND superseded_by = :self",
            {"by": other[0] if other else None, "id": old_id, "user_id": record.user_id, "self": record.id},
        )
    return []


def _by_number(db: Connection, number: int) -> MemoryRecord:
    return to_record(db.execute(f"SELECT {COLUMNS} FROM memories WHERE number = ?", (number,)).fetchone())


def _posting(db: Connection, user_id: str, term: int) -> list[int]:
    """Return the numbers of the user's memories that have the term."""
    found = db.execute("SELECT rowid FROM words WHERE words MATCH ?", (_tokens(user_id, [term]),))
    return [number for (number,) in found]


def _recent_embeddings(db: Connection, user_id: str) -> list[bytes]:
    rows = db.execute(
        """SELECT embedding FROM memories WHERE user_id = ? AND embedding IS NOT NULL
           ORDER BY created_at DESC, id DESC LIMIT ?""",
        (user_id, CENTERING_SAMPLE),
    )
    return [blob for (blob,) in rows]


def _cosines(embeddings: dict[int, bytes | None], vector: Vector | None, recent: Sequence[bytes]) -> dict[int, float]:
    """Return the cosine of each embedding with the query's vector, moved away from the mean of `recent`."""
    present = {number: blob for number, blob in embeddings.items() if blob is not None}
    if vector is None or not present:
        return {}
    import numpy as np  # only stores with vectors need it

    def matrix(blobs: Collection[bytes]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return np.frombuffer(b"".join(blobs), dtype="<f2").astype(np.float32).reshape(len(blobs), len(vector))

    query = matrix([pack_embedding(vector)])[0]
    if recent:
        share = np.float32(len(recent) / (len(recent) + CENTERING_HALF_LIFE))
        query = query - matrix(recent).mean(axis=0) * share
        query = query / (np.linalg.norm(query) or 1.0)
        query = query.astype(np.float16).astype(np.float32)
    return dict(zip(present, (matrix(present.values()) @ query).tolist(), strict=True))


def _tokens(user_id: str, terms: Iterable[int]) -> str:
    """Spell terms for FTS5, each as 16 hexadecimal digits, mixed with the user's own hash.

    So one user's words stand apart from everybody else's, and a look-up reads that user's entries alone.
    """
    own = int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest())
    return " ".join(f"{term ^ own:016x}" for term in terms)


def _now() -> int:
    return time.time_ns() // 1000
