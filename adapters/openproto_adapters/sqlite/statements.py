"""What each verb does to the file: functions over one connection, inside the transaction that the caller holds.

Statements that name a user are constants, so that a test can take that condition out of each of them in turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from openproto.errors import ConflictError, InvalidRequestError, NotFoundError, OpenProtoError
from openproto.models import MemoryPage, MemoryRecord, UserPage
from openproto.provider import AuditEntries, ScopeCounts, count_scopes
from openproto.requests import (
    AuditQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryUpdate,
    RecordRef,
    ScopesQuery,
    UsersQuery,
    check_validity,
)
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.compact_json import to_json
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.indexer import IndexedText, StoredModel
from openproto_adapters.sqlite import word_index
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import COLUMNS, from_micros, pack_embedding, to_micros, to_record
from openproto_adapters.sqlite.selection import Parameters, check_owner, own, selection
from openproto_adapters.sqlite.supersession import release, supersede

_NEW_VERSION = "lower(hex(randomblob(8)))"

GET = f"SELECT {COLUMNS} FROM memories WHERE id = :id AND user_id = :user_id"
GET_OF_ANYBODY = f"SELECT {COLUMNS} FROM memories WHERE id = :id"
_ASKED = "(SELECT key AS place, value FROM json_each(:ids)) CROSS JOIN memories ON id = value"
GET_EACH = f"SELECT place, {COLUMNS} FROM {_ASKED} WHERE user_id = :user_id"
GET_EACH_OF_ANYBODY = f"SELECT place, {COLUMNS} FROM {_ASKED}"
GET_BY_KEY = f"SELECT {COLUMNS} FROM memories WHERE user_id = :user_id AND key = :key"

UPDATE = f"""UPDATE main.memories SET {{assignments}}, updated_at = :now, version = {_NEW_VERSION}
    WHERE id = :id AND user_id = :user_id AND version = coalesce(:if_version, version) RETURNING user_id"""

INDEXED = "SELECT number, content FROM memories WHERE id = :id AND user_id = :user_id"

# A successor without a valid_from holds from the first write that named a predecessor.
STARTS = """, valid_from = coalesce(valid_from, :now), starts_by_handover = valid_from IS NULL OR starts_by_handover"""
STARTS_NO_MORE = """, valid_from = CASE WHEN starts_by_handover THEN NULL ELSE valid_from END, starts_by_handover = 0"""

DELETE = """DELETE FROM main.memories WHERE id = :id AND user_id = :user_id AND version = coalesce(:if_version, version)
    RETURNING number, user_id, scope"""
DELETE_ALL = "DELETE FROM main.memories WHERE {where} RETURNING number, user_id, id, scope"

LIST = f"SELECT {COLUMNS} FROM memories WHERE {{where}} ORDER BY created_at DESC, id DESC LIMIT :limit"

SCOPES = """SELECT user_id, scope, count(*) FROM memories WHERE {where} AND scope IS NOT NULL
    GROUP BY user_id, scope"""

NEXT_USER = "SELECT min(user_id) FROM memories WHERE user_id > :after"

NEXT_ENTRY = "(SELECT coalesce(max(number), 0) + 1 FROM main.audit WHERE user_id = ? AND timestamp = ?)"

LIST_AUDIT = """SELECT user_id, timestamp, app, action, memory_id, scope, request_id FROM audit
    WHERE user_id = :user_id AND (:app IS NULL OR app = :app) AND (:id IS NULL OR memory_id = :id)
      AND timestamp >= coalesce(:since, timestamp)
    ORDER BY timestamp DESC, number DESC LIMIT :limit"""


def stored_model(db: Connection) -> StoredModel:
    """Return what the file was built with."""
    model, dim, rules = db.execute("SELECT model, dim, rules FROM store").fetchone()
    db.act_for(None)
    (has_memories,) = db.execute("SELECT EXISTS (SELECT 1 FROM memories)").fetchone()
    return StoredModel(model, dim, bool(has_memories), rules)


def adopt_model(db: Connection, model: str | None, dim: int | None) -> StoredModel:
    """Give an empty file its model, and return what the file has then: another process may have been first."""
    stored = stored_model(db)
    if model is not None and stored.model is None and not stored.has_memories:
        db.execute("UPDATE store SET model = ?, dim = ?", (model, dim))
        return StoredModel(model, dim, False)
    return stored


def get(db: Connection, ref: RecordRef) -> MemoryRecord:
    """Return the record; another user's is as unknown as one that never was."""
    db.act_for(ref.user_id)
    statement = GET_OF_ANYBODY if ref.user_id is None else GET
    row = db.execute(statement, {"id": ref.id, "user_id": ref.user_id}).fetchone()
    if row is None:
        raise NotFoundError("no such memory")
    return own(to_record(row), ref.user_id)


def get_each(db: Connection, refs: Sequence[RecordRef]) -> list[MemoryRecord | OpenProtoError]:
    """Return each record, or NotFoundError in its place."""
    places: dict[str | None, list[int]] = {}
    for place, ref in enumerate(refs):
        places.setdefault(ref.user_id, []).append(place)
    found: dict[int, MemoryRecord] = {}
    for user_id, its in places.items():
        db.act_for(user_id)
        statement = GET_EACH_OF_ANYBODY if user_id is None else GET_EACH
        for place, *row in db.execute(statement, {"ids": to_json([refs[n].id for n in its]), "user_id": user_id}):
            found[its[place]] = own(to_record(row), user_id)
    return [found.get(place) or NotFoundError("no such memory") for place in range(len(refs))]


def get_each_by_key(db: Connection, refs: Sequence[KeyRef]) -> list[MemoryRecord | OpenProtoError]:
    """Return each user's record of that key, or NotFoundError in its place."""
    found: list[MemoryRecord | OpenProtoError] = []
    for ref in refs:
        db.act_for(ref.user_id)
        found.append(by_key(db, ref.user_id, ref.key) or NotFoundError("no such memory"))
    return found


def update(db: Connection, ref: RecordRef, change: MemoryUpdate, new: IndexedText[None] | None) -> MemoryRecord:
    """Apply the changes; the words and the vector follow the content."""
    before = get(db, ref)
    if ref.user_id is None:
        db.act_for(before.user_id)
        ref = ref.model_copy(update={"user_id": before.user_id})
    changes = change.changes
    try:
        check_validity(before.valid_from, changes.get("valid_to"))
    except ValueError as error:
        raise InvalidRequestError(str(error)) from None
    moment = now()
    columns: Parameters = {name: changes[name] for name in ("scope", "confidence") if name in changes}
    if "valid_to" in changes:
        columns["valid_to"] = to_micros(changes["valid_to"])
    if "tags" in changes:
        columns["tags"] = to_json(changes["tags"] or [])
    if "source" in changes:
        columns["source"] = to_json(changes["source"].model_dump()) if changes["source"] else None
    if change.extensions:
        columns["extensions"] = to_json(change.changed_extensions(before.extensions))
    more = ""
    if wanted := changes.get("supersedes"):
        columns["supersedes"] = to_json([*dict.fromkeys([*before.supersedes, *wanted])])
        supersede(db, ref.id, before.user_id, wanted, to_micros(before.valid_from or from_micros(moment)))
        more = STARTS
    elif changes.get("supersedes", ()) is None:
        columns["supersedes"] = "[]"
        release(db, ref.id, before.user_id, before.supersedes)
        more = STARTS_NO_MORE
    if new is not None:
        embedding = pack_embedding(new.vector) if new.vector is not None else None
        columns |= {"content": changes["content"], "embedding": embedding, "next_embedding": None}
    assignments = ", ".join(f"{name} = :{name}" for name in columns) or "updated_at = updated_at"
    change_row(db, ref, assignments + more, columns | {"now": moment})
    if new is not None:
        change_words(db, ref.id, before.user_id)
    return get(db, ref)  # RETURNING would tell 1.0 as 1


def delete(db: Connection, ref: RecordRef) -> tuple[str, str | None]:
    """Remove the record, but not its idempotency key, and return its user and its scope."""
    user_id = get(db, ref).user_id if ref.user_id is None else ref.user_id
    db.act_for(user_id)
    gone = db.execute(DELETE, {"id": ref.id, "user_id": user_id, "if_version": ref.if_version}).fetchall()
    if not gone:
        get(db, ref)  # which is there, in another version, or raises NotFoundError
        raise stale()
    _forget(db, [row[:2] for row in gone], user_id)
    ((*_, scope),) = gone
    return user_id, scope


def delete_all(db: Connection, filters: Filters) -> list[tuple[str, str | None]]:
    """Remove the records that the filters select, and return the id and the scope of each."""
    db.act_for(filters.user_id)
    where, parameters = selection(filters, None)
    gone = db.execute(DELETE_ALL.format(where=where), parameters).fetchall()
    _forget(db, [row[:2] for row in gone], filters.user_id)
    return [(id, scope) for *_, id, scope in gone]


def list_page(db: Connection, query: ListQuery) -> MemoryPage:
    """Return one page, newest first, starting after the cursor's record."""
    db.act_for(query.user_id)
    where, parameters = selection(query, query.as_of)
    parameters |= {"since": to_micros(query.since), "until": to_micros(query.until), "limit": query.limit + 1}
    where += " AND created_at >= coalesce(:since, created_at) AND created_at <= coalesce(:until, created_at)"
    if position := decode_cursor(query):
        where += " AND (created_at, id) < (:after, :after_id)"
        parameters |= {"after": to_micros(position[0]), "after_id": position[1]}
    rows = db.execute(LIST.format(where=where), parameters).fetchall()
    items = [own(to_record(row), query.user_id) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    return MemoryPage(
        items=items, next_cursor=encode_cursor(query, items[-1].created_at, items[-1].id) if more else None
    )


def list_scopes(db: Connection, query: ScopesQuery) -> ScopeCounts:
    """Return the scopes in use, each with its number of records."""
    db.act_for(query.user_id)
    where, parameters = selection(Filters(user_id=query.user_id, scope=query.prefix), None)
    rows = db.execute(SCOPES.format(where=where), parameters).fetchall()
    for owner, *_ in rows:
        check_owner(owner, query.user_id)
    return count_scopes(((scope, records) for _, scope, records in rows), query.depth)


def list_users(db: Connection, query: UsersQuery) -> UserPage:
    """Return a page of the users that have records; each is found by a look into the index."""
    db.act_for(None)
    items: list[str] = []
    after = query.cursor or ""
    while len(items) <= query.limit and (row := db.execute(NEXT_USER, {"after": after}).fetchone())[0] is not None:
        items.append(after := row[0])
    more = len(items) > query.limit
    return UserPage(items=items[: query.limit], next_cursor=items[query.limit - 1] if more else None)


def list_audit(db: Connection, query: AuditQuery) -> AuditEntries:
    """Return the user's audit entries, newest first."""
    db.act_for(query.user_id)
    wanted = query.model_dump(include={"user_id", "app", "limit"})
    rows = db.execute(LIST_AUDIT, wanted | {"id": query.memory_id, "since": to_micros(query.since)}).fetchall()
    for owner, *_ in rows:
        check_owner(owner, query.user_id)
    return [AuditRow.of_micros(row).entry() for row in rows]


def size(db: Connection) -> int:
    """Return how many bytes of the file are in use."""
    pages, unused, bytes_each = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - unused) * bytes_each)


def write_audit(db: Connection, rows: Iterable[AuditRow]) -> None:
    """Append audit entries."""
    columns = dict(zip(AuditRow._fields, zip(*rows, strict=True), strict=False))
    if columns:
        moments = [*map(to_micros, columns["timestamp"])]
        db.insert("main.audit", columns | {"timestamp": moments}, "number", NEXT_ENTRY, ("user_id", "timestamp"))


def by_key(db: Connection, user_id: str, key: str | None) -> MemoryRecord | None:
    """Return the user's record of that key, or None."""
    row = db.execute(GET_BY_KEY, {"user_id": user_id, "key": key}).fetchone()
    return None if row is None else own(to_record(row), user_id)


def change_row(db: Connection, ref: RecordRef, assignments: str, parameters: Parameters) -> None:
    """Change the row, which is there; ConflictError where it has another version than the caller demands."""
    who = {"id": ref.id, "user_id": ref.user_id, "if_version": ref.if_version}
    changed = db.execute(UPDATE.format(assignments=assignments), parameters | who).fetchall()
    if not changed:
        raise stale()
    for (owner,) in changed:
        check_owner(owner, ref.user_id)


def change_words(db: Connection, id: str, user_id: str) -> None:
    """Let the record be found by the words of its content, which has changed."""
    for number, content in db.execute(INDEXED, {"id": id, "user_id": user_id}).fetchall():
        word_index.replace(db, number, word_index.terms_of(user_id, content))


def _forget(db: Connection, gone: Sequence[tuple[int, str]], user_id: str) -> None:
    """Remove the words of deleted rows, each of which must have been the user's."""
    for number, owner in gone:
        check_owner(owner, user_id)
        word_index.forget(db, number)


def stale() -> ConflictError:
    """Return the error for a record that has another version than the caller demands."""
    return ConflictError("if_version: is not the version of the record there is; read it again and decide anew")


def now() -> int:
    """Return the moment in microseconds since 1970."""
    return time.time_ns() // 1000
