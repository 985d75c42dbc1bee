"""Records written as they are: their ids, moments, keys, and supersession kept, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

from openproto.errors import ConflictError, NotFoundError, OpenProtoError
from openproto.models import MemoryRecord, RestoreOutcome
from openproto.provider import RestoreOutcomes
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.indexer import IndexedBatch, IndexedInput
from openproto.stores.restoring import refused, settled
from openproto_adapters.sqlite.database import Connection
from openproto_adapters.sqlite.records import from_micros, to_micros
from openproto_adapters.sqlite.selection import check_owner
from openproto_adapters.sqlite.statements import GET_BY_KEY, fields_of, insert, write_audit
from openproto_adapters.sqlite.supersession import handovers_of, set_handovers

OWNER = "SELECT user_id FROM memories WHERE id = :id"

# Which existing records name this one, oldest first, and when each of them begins.
SUCCESSORS = """SELECT user_id, id, coalesce(valid_from, created_at) FROM memories
    WHERE user_id = :user_id AND supersedes <> '[]' AND EXISTS (SELECT 1 FROM json_each(supersedes) WHERE value = :id)
    ORDER BY created_at, id"""


def restore(
    db: Connection,
    records: Sequence[MemoryRecord],
    batch: IndexedBatch[list[int]],
    audit: Callable[[MemoryRecord], AuditRow],
) -> RestoreOutcomes:
    """Write the records and return what became of each; then settle who supersedes whom."""
    outcomes = [_restore_one(db, record, new) for record, new in zip(records, batch, strict=True)]
    written = {r.id: r for r, made in zip(records, outcomes, strict=True) if made.outcome == "restored"}
    for id, user_id in dict.fromkeys((id, r.user_id) for r in written.values() for id in (r.id, *r.supersedes)):
        _settle(db, id, user_id, written)
    write_audit(db, [audit(record) for record in written.values()])
    return outcomes


def _restore_one(db: Connection, record: MemoryRecord, new: IndexedInput[list[int]] | OpenProtoError) -> RestoreOutcome:
    if isinstance(new, OpenProtoError):
        return refused(record, new)
    db.act_for(None)
    owner = db.execute(OWNER, {"id": record.id}).fetchone()
    if owner is not None and owner[0] == record.user_id:
        return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="exists")
    if owner is not None:
        return refused(record, ConflictError("id: a record of another user has it; add() makes a new one"))
    db.act_for(record.user_id)
    if record.key is not None:
        bearer = db.execute(GET_BY_KEY, {"user_id": record.user_id, "key": record.key}).fetchone()
        if bearer is not None:
            return refused(record, ConflictError("key: another record of this user bears it; delete that one first"))
    created = to_micros(record.created_at)
    moments = {"created_at": created, "updated_at": to_micros(record.updated_at)}
    insert(db, new, fields_of(new.item, new, created) | moments)
    return RestoreOutcome(id=record.id, user_id=record.user_id, outcome="restored")


def _settle(db: Connection, id: str, user_id: str, written: Mapping[str, MemoryRecord]) -> None:
    db.act_for(user_id)
    try:
        before = handovers_of(db, id, user_id)
    except NotFoundError:
        return
    successors: dict[str, datetime] = {}
    for owner, successor, moment in db.execute(SUCCESSORS, {"id": id, "user_id": user_id}).fetchall():
        check_owner(owner, user_id)
        successors[successor] = from_micros(int(moment))
    known = [(by, from_micros(moment)) for by, moment in before]
    after = settled(known, successors, written.keys(), written.get(id))
    if after != known:
        set_handovers(db, id, user_id, [(by, to_micros(moment)) for by, moment in after])
