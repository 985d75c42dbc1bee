"""An audit journal in an SQLite file, which the processes of one machine may share."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from openproto.blocking.sqlite import SqliteThread, file_error
from openproto.errors import ProviderUnavailableError
from openproto.layers.journals.journal import ACTION, Journal
from openproto.provider import AuditEntries
from openproto.requests import AuditQuery
from openproto.stores.audit_buffer import AuditRow
from openproto.stores.moments import to_micros

_LOCK_TIMEOUT = 5.0

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS audit (
        number INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL,
        timestamp INTEGER NOT NULL, -- microseconds since 1970
        app TEXT,
        action TEXT NOT NULL,
        memory_id TEXT,
        scope TEXT,
        request_id TEXT
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS audit_listing ON audit (user_id, timestamp DESC, number DESC)",
    "CREATE UNIQUE INDEX IF NOT EXISTS audit_adds ON audit (user_id, memory_id) WHERE action = 'add'",
)
_APPEND = """INSERT INTO audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, memory_id) WHERE action = 'add' DO NOTHING"""
_ENTRIES = """SELECT user_id, timestamp, app, ACTION, memory_id, scope, request_id FROM audit
    WHERE user_id = :user_id AND (:app IS NULL OR app = :app) AND (:memory_id IS NULL OR memory_id = :memory_id)
      AND timestamp >= coalesce(:since, timestamp)
    ORDER BY timestamp DESC, number DESC LIMIT :limit""".replace("ACTION", ACTION)


class SqliteJournal(Journal):
    """Keeps entries in the table `audit` of one file, created with its folder if missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: SqliteThread | None = None
        self._reader: SqliteThread | None = None

    @property
    def place(self) -> str:
        """The file."""
        return str(self._path)

    async def open(self) -> None:
        """Open or create the file."""
        self._writer = self._lane("openproto-audit-write")
        self._reader = self._lane("openproto-audit-read")
        await self._writer.run(_create)

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Write the entries in one transaction."""
        values = [(row.user_id, to_micros(row.timestamp), *row[2:]) for row in rows]

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(_APPEND, values)

        await _open(self._writer).run(write)

    async def entries(self, query: AuditQuery) -> AuditEntries:
        """Return the entries; a process that writes to the file does not hold this up."""
        parameters = {**query.model_dump(), "since": query.since and to_micros(query.since)}

        def read(connection: sqlite3.Connection) -> AuditEntries:
            return [AuditRow.of_micros(row).entry() for row in connection.execute(_ENTRIES, parameters)]

        return await _open(self._reader).run(read)

    async def close(self) -> None:
        """Close the file."""
        reader, writer, self._reader, self._writer = self._reader, self._writer, None, None
        try:
            if reader is not None:
                await reader.close()
        finally:
            # One after the other: SQLite clears up behind the file only in a connection that is alone when it closes.
            if writer is not None:
                await writer.close()

    def _lane(self, name: str) -> SqliteThread:
        return SqliteThread(self._path, name, _file_error, lock_timeout=_LOCK_TIMEOUT)


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = wal")
    for statement in _SCHEMA:
        connection.execute(statement)


_file_error = partial(file_error, what="the audit journal", option="audit=")


def _open(lane: SqliteThread | None) -> SqliteThread:
    if lane is None:
        raise ProviderUnavailableError("the client was closed while this call was running; use an open one")
    return lane
