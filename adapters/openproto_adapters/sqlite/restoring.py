"""Records written as they are: their ids, moments, keys, and supersession kept, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from openproto.errors import ConflictError, NotFoundError, OpenProtoError
from openproto.models import MemoryRecord, RestoreOutcome, StoredRecord, UserPart
from openproto.provider import RestoreOutcomes
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.compact_json import to_json
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto.stores.restoring import outcome_of, refused, settled, to_settle
from openproto_adapters.sqlite.adding import INSERT_KEY, fields_of, insert, new_versions
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import from_micros, to_micros
from openproto_adapters.sqlite.selection import check_owner
from openproto_adapters.sqlite.statements import GET_BY_KEY, NEXT_ENTRY, write_audit
from openproto_adapters.sqlite.supersession import handovers_of, set_handovers

OWNERS = "SELECT id, user_id FROM memories WHERE id IN (SELECT value FROM json_each(:ids))"

# Which existing records name one of these, oldest first, and when each of them begins.
SUCCESSORS = """SELECT s.user_id, named.value, s.id, coalesce(s.valid_from, s.created_at)
    FROM memories s, json_each(s.supersedes) named
    WHERE s.user_id = :user_id AND s.supersedes <> '[]' AND named.value IN (SELECT value FROM json_each(:ids))
    ORDER BY s.created_at, s.id"""

# The records that a successor names, one of both being new, and that do not know of it.
MISSING_HANDOVERS = """SELECT old.user_id, old.id
    FROM memories s, json_each(s.supersedes) named JOIN memories old ON old.id = named.value AND old.user_id = s.user_id
    WHERE s.user_id = :user_id AND s.supersedes <> '[]'
        AND (s.id IN (SELECT value FROM json_each(:ids)) OR old.id IN (SELECT value FROM json_each(:ids)))
        AND NOT EXISTS (SELECT 1 FROM json_each(old.handovers) WHERE json_extract(value, '$[0]') = s.id)"""

LAST_WRITES = """SELECT user_id, memory_id, action FROM audit
    WHERE user_id = :user_id AND action IN ('add', 'delete') AND memory_id IN (SELECT value FROM json_each(:ids))
    ORDER BY timestamp, number"""

_NEXT_ENTRY = NEXT_ENTRY.replace("?", ":user_id", 1).replace("?", ":timestamp", 1)
INSERT_AUDIT_ONCE = f"""INSERT INTO main.audit (user_id, timestamp, number, app, action, memory_id, scope, request_id)
    SELECT :user_id, :timestamp, {_NEXT_ENTRY}, :app, :action, :memory_id, :scope, :request_id WHERE NOT EXISTS (
        SELECT 1 FROM audit WHERE user_id = :user_id AND timestamp = :timestamp AND app IS :app AND action = :action
            AND memory_id IS :memory_id AND scope IS :scope AND request_id IS :request_id)"""


def restore(
    db: Connection,
    records: Sequence[StoredRecord],
    batch: IndexedBatch[None],
    audit: Callable[[MemoryRecord], AuditRow],
    deleted: Collection[str] = (),
) -> RestoreOutcomes:
    """Write the records, but those whose ids are `deleted`; then settle who supersedes whom."""
    there = _There(db, [stored.record for stored in records])
    outcomes: list[RestoreOutcome] = []
    versions = iter(new_versions(len(records)))
    rows: list[tuple[IndexedInput[None], Sequence[Any]]] = []
    for stored, new in zip(records, batch, strict=True):
        record = stored.record
        if record.id in deleted:
            outcomes.append(outcome_of(record, "deleted"))
        elif isinstance(new, OpenProtoError):
            outcomes.append(refused(record, new))
        elif (found := there.outcome(record)) is not None:
            outcomes.append(found)
        else:
            created_at = to_micros(record.created_at)
            begins = to_micros(stored.begins) if stored.begins else created_at
            updated_at = to_micros(record.updated_at)
            fields = fields_of(new, begins, version=next(versions), created_at=created_at, updated_at=updated_at)
            rows.append((new, fields))
            outcomes.append(outcome_of(record, "restored"))
    if rows:
        insert(db, rows)
    written = {r.record.id: r for r, made in zip(records, outcomes, strict=True) if made.outcome == "restored"}
    of_user: dict[str, dict[str, StoredRecord]] = {}
    for id, stored in written.items():
        of_user.setdefault(stored.record.user_id, {})[id] = stored
    for user_id, own in of_user.items():
        db.act_for(user_id)
        for id, stored in own.items():
            if stored.handovers:
                set_handovers(db, id, user_id, [(by, to_micros(moment)) for by, moment in stored.handovers])
        missing = db.execute(MISSING_HANDOVERS, {"user_id": user_id, "ids": to_json([*own])}).fetchall()
        for owner, _ in missing:
            check_owner(owner, user_id)
        if unsettled := to_settle(own.values()) | {id for _, id in missing}:
            _settle(db, user_id, unsettled, own)
    write_audit(db, [audit(stored.record) for stored in written.values()])
    return outcomes


def load(
    db: Connection,
    parts: Sequence[UserPart],
    batch: IndexedBatch[None],
    caller: tuple[str | None, str],
    *,
    include_deleted: bool,
) -> RestoreOutcomes:
    """Write parts of a snapshot: records, the keys that were used, and audit entries that are not there yet."""
    (app, request_id), now = caller, datetime.now(UTC)
    records = [stored for part in parts for stored in part.records]
    deleted = set() if include_deleted else {id for part in parts for id in _deleted(db, part)}

    def audit(record: MemoryRecord) -> AuditRow:
        return AuditRow(record.user_id, now, app, "add", record.id, record.scope, request_id)

    outcomes = restore(db, records, batch, audit, deleted)
    for part in parts:
        db.act_for(part.user_id)
        keys = ((part.user_id, k.idempotency_key, k.record_id, bytes.fromhex(k.fingerprint)) for k in part.keys)
        db.executemany(INSERT_KEY.replace("INSERT", "INSERT OR IGNORE"), keys)
        db.executemany(
            INSERT_AUDIT_ONCE,
            ({**dict(entry), "user_id": part.user_id, "timestamp": to_micros(entry.timestamp)} for entry in part.audit),
        )
    return outcomes


def _deleted(db: Connection, part: UserPart) -> set[str]:
    """Return which of the records their user deleted, and nobody brought back since."""
    db.act_for(part.user_id)
    ids = [stored.record.id for stored in part.records]
    rows = db.execute(LAST_WRITES, {"user_id": part.user_id, "ids": to_json(ids)}).fetchall()
    for owner, *_ in rows:
        check_owner(owner, part.user_id)
    last = {id: action for _, id, action in rows}
    return {id for id, action in last.items() if action == "delete"}


class _There:
    """What keeps records from being written: those that have their ids or keys, in the file or before them."""

    def __init__(self, db: Connection, records: Sequence[MemoryRecord]) -> None:
        self._db = db
        db.act_for(None)
        self._owners = dict(db.execute(OWNERS, {"ids": to_json([record.id for record in records])}).fetchall())
        self._bearers: set[tuple[str, str]] = set()

    def outcome(self, record: MemoryRecord) -> RestoreOutcome | None:
        """Return why the record is not written, or None where it is, and is there from now on."""
        owner = self._owners.get(record.id)
        if owner == record.user_id:
            return outcome_of(record, "exists")
        if owner is not None:
            return refused(record, ConflictError("id: a record of another user has it; add() makes a new one"))
        if record.key is not None:
            bearer = (record.user_id, record.key)
            self._db.act_for(record.user_id)
            who = {"user_id": record.user_id, "key": record.key}
            if bearer in self._bearers or self._db.execute(GET_BY_KEY, who).fetchone() is not None:
                return refused(
                    record, ConflictError("key: another record of this user bears it; delete that one first")
                )
            self._bearers.add(bearer)
        self._owners[record.id] = record.user_id
        return None


def _settle(db: Connection, user_id: str, ids: Collection[str], written: Mapping[str, StoredRecord]) -> None:
    existing: dict[str, dict[str, datetime]] = {}
    for owner, id, successor, moment in db.execute(SUCCESSORS, {"user_id": user_id, "ids": to_json([*ids])}).fetchall():
        check_owner(owner, user_id)
        existing.setdefault(id, {})[successor] = from_micros(int(moment))
    for id in ids:
        try:
            before = handovers_of(db, id, user_id)
        except NotFoundError:
            continue
        known = [(by, from_micros(moment)) for by, moment in before]
        after = settled(known, existing.get(id, {}), written, written.get(id))
        if after != known:
            set_handovers(db, id, user_id, [(by, to_micros(moment)) for by, moment in after])
