"""A snapshot of the file: everything that it holds, as of one moment, read a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from sqlite3 import Cursor
from typing import Any, TypeAlias

from openproto.models import StoredRecord, UsedKey, UserPart
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.compact_json import from_json
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import COLUMNS, NO_LIST, from_micros, to_record
from openproto_adapters.sqlite.selection import check_owner

Run: TypeAlias = Callable[[Callable[[Connection], Any]], Awaitable[Any]]

ROWS = 250

NEXT_USER = """SELECT min(user_id) FROM (
    SELECT min(user_id) AS user_id FROM memories WHERE user_id > :after
    UNION ALL SELECT min(user_id) FROM keys WHERE user_id > :after
    UNION ALL SELECT min(user_id) FROM audit WHERE user_id > :after)"""

RECORDS = f"""SELECT {COLUMNS}, valid_from, handovers, CASE WHEN :vectors THEN embedding END FROM memories
    WHERE user_id = :user_id ORDER BY created_at, id"""

SCOPES = "SELECT user_id, scope, count(*) FROM memories WHERE user_id = :user_id GROUP BY user_id, scope"

# The key that a client makes for a call is the record's id, and only that call's retries ever repeat it.
KEYS = """SELECT user_id, idempotency_key, memory_id, fingerprint FROM keys
    WHERE user_id = :user_id AND idempotency_key <> memory_id ORDER BY idempotency_key"""

AUDIT = """SELECT user_id, timestamp, app, action, memory_id, scope, request_id FROM audit
    WHERE user_id = :user_id ORDER BY timestamp, number"""


class SqliteSnapshot:
    """The file as of the moment when `run`'s transaction began."""

    def __init__(self, run: Run, model: str | None, *, vectors: bool) -> None:
        self.model = model if vectors else None
        self.consistent = True
        self.lacks: Sequence[str] = ()
        self._run = run
        self._vectors = vectors

    async def users(self) -> AsyncIterator[str]:
        """Return the ids of all users, in order."""
        found = {"after": ""}

        def next_user(db: Connection) -> str | None:
            db.act_for(None)
            user: str | None = db.execute(NEXT_USER, found).fetchone()[0]
            return user

        while (user := await self._run(next_user)) is not None:
            found["after"] = user
            yield user

    async def counts(self, user_id: str) -> Mapping[str | None, int]:
        """Return how many records the user has in each scope."""
        return {scope: count async for rows in self._rows(SCOPES, user_id, owner=0) for _, scope, count in rows}

    async def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the records of a user, oldest first."""
        async for rows in self._rows(RECORDS, user_id):
            yield [_stored(row) for row in rows]

    async def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return all that the file holds of a user."""
        async for records in self.records(user_id):
            yield UserPart(user_id, records=records)
        async for rows in self._rows(KEYS, user_id, owner=0):
            keys = [UsedKey(idempotency_key=k, record_id=id, fingerprint=digest.hex()) for _, k, id, digest in rows]
            yield UserPart(user_id, keys=keys)
        async for rows in self._rows(AUDIT, user_id, owner=0):
            yield UserPart(user_id, audit=[AuditRow.of_micros(row).entry() for row in rows])

    async def _rows(self, statement: str, user_id: str, owner: int = 2) -> AsyncIterator[Sequence[Any]]:
        parameters = {"user_id": user_id, "vectors": self._vectors}
        cursor: Cursor | None = None

        def fetch(db: Connection) -> Sequence[Any]:
            nonlocal cursor
            db.act_for(user_id)
            cursor = cursor or db.execute(statement, parameters)
            return cursor.fetchmany(ROWS)

        while rows := await self._run(fetch):
            for row in rows:
                check_owner(row[owner], user_id)
            yield rows


def _stored(row: tuple[Any, ...]) -> StoredRecord:
    *columns, valid_from, handovers, vector = row
    record = to_record(tuple(columns))
    # Validated when it was written, as the record was.
    return StoredRecord.of_valid(
        {
            "record": record,
            "begins": from_micros(valid_from) if record.valid_from is None else None,
            "handovers": _moments(handovers) if handovers != NO_LIST else [],
            "vector": vector,
        },
        {},
    )


def _moments(handovers: str) -> list[tuple[str, datetime]]:
    return [(by, from_micros(int(moment))) for by, moment in from_json(handovers)]
