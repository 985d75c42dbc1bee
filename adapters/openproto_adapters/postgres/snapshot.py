"""A snapshot of the store: everything that it holds, as of one moment, read a little at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from openproto.models import StoredRecord, UsedKey, UserPart
from openproto.stores.audit_buffer import AuditRow
from openproto_adapters.postgres.queries import RECORD, Queries
from openproto_adapters.postgres.records import check_owner, to_record
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.vectors import to_half_precision

ROWS = 250

# As for `users`, of each table: who deleted every record has keys and audit entries yet.
NEXT_USER = """
SELECT min(user_id) FROM (
    (SELECT m.user_id FROM {schema}.memories m WHERE m.user_id > $1 ORDER BY m.user_id LIMIT 1)
    UNION ALL (SELECT k.user_id FROM {schema}.keys k WHERE k.user_id > $1 ORDER BY k.user_id LIMIT 1)
    UNION ALL (SELECT a.user_id FROM {schema}.audit a WHERE a.user_id > $1 ORDER BY a.user_id LIMIT 1)
) AS found
"""

RECORDS = f"""
SELECT {RECORD}, m.user_id, CASE WHEN m.starts_by_handover THEN m.valid_from END AS begins, m.successors, m.handovers,
    CASE WHEN $2::boolean THEN m.embedding END AS embedding
FROM {{schema}}.memories m WHERE m.user_id = $1 ORDER BY m.created_at, m.id
"""

SCOPES = """
SELECT m.user_id, m.scope, count(*) FROM {schema}.memories m
WHERE m.user_id = $1 AND $2::boolean IS NOT NULL GROUP BY m.user_id, m.scope
"""

KEYS = """
SELECT m.user_id, m.idempotency_key, m.memory_id::text AS record_id, m.fingerprint FROM {schema}.keys m
WHERE m.user_id = $1 AND m.idempotency_key <> m.memory_id::text AND $2::boolean IS NOT NULL ORDER BY m.idempotency_key
"""

AUDIT = """
SELECT m.user_id, m.timestamp, m.app, m.action, m.memory_id, m.scope, m.request_id FROM {schema}.audit m
WHERE m.user_id = $1 AND $2::boolean IS NOT NULL ORDER BY m.timestamp, m.number
"""


class PostgresSnapshot:
    """The store as of the moment when the transaction of `connection` began."""

    def __init__(self, connection: Any, queries: Queries, model: str | None, *, vectors: bool) -> None:
        self.model = model if vectors else None
        self.consistent = True
        self.lacks: Sequence[str] = ()
        self._connection = connection
        self._queries = queries
        self._vectors = vectors

    async def users(self) -> AsyncIterator[str]:
        """Return the ids of all users, in order."""
        after = ""
        while (found := await self._connection.fetchval(*self._queries.operator(NEXT_USER, after))) is not None:
            after = str(found)
            yield after

    async def counts(self, user_id: str) -> Mapping[str | None, int]:
        """Return how many records the user has in each scope."""
        return {scope: count async for rows in self._rows(SCOPES, user_id) for _, scope, count in rows}

    async def records(self, user_id: str) -> AsyncIterator[Sequence[StoredRecord]]:
        """Return the records of a user, oldest first."""
        async for rows in self._rows(RECORDS, user_id):
            yield [_stored(row) for row in rows]

    async def parts(self, user_id: str) -> AsyncIterator[UserPart]:
        """Return all that the store holds of a user."""
        async for records in self.records(user_id):
            yield UserPart(user_id, records=records)
        async for rows in self._rows(KEYS, user_id):
            keys = [UsedKey(idempotency_key=k, record_id=id, fingerprint=digest.hex()) for _, k, id, digest in rows]
            yield UserPart(user_id, keys=keys)
        async for rows in self._rows(AUDIT, user_id):
            yield UserPart(user_id, audit=[AuditRow(*row).entry() for row in rows])

    async def _rows(self, statement: str, user_id: str) -> AsyncIterator[Sequence[Any]]:
        acting = acting_for(user_id)
        cursor = await self._connection.cursor(*self._queries.acting(acting, statement, user_id, self._vectors))
        while rows := await cursor.fetch(ROWS):
            check_owner([row["user_id"] for row in rows], user_id)
            yield rows


def _stored(row: Any) -> StoredRecord:
    *columns, _, begins, successors, handovers, embedding = row
    # Validated when it was written, as the record was.
    return StoredRecord.of_valid(
        {
            "record": to_record(columns),
            "begins": begins,
            "handovers": [*zip(map(str, successors or ()), handovers or (), strict=True)],
            "vector": to_half_precision(embedding) if embedding is not None else None,
        },
        {},
    )
