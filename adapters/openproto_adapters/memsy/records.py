"""The file that holds the records, because Memsy returns what it made of them and deletes nothing.

A record that is deleted leaves its key behind, and nothing of what it said.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from openproto.blocking.sqlite import SqliteThread, file_error
from openproto.emulation import Stored, owner_in
from openproto.stores.moments import to_micros
from openproto_adapters.memsy.events import Kept
from openproto_adapters.memsy.ids import EventId

PAGE = 200

_LATEST = (2**63 - 1, "")
_MOST_PARAMETERS = 500

_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS memsy_records (
        actor TEXT NOT NULL,
        session TEXT NOT NULL,
        id TEXT NOT NULL,
        created_at INTEGER NOT NULL, -- microseconds since 1970
        event TEXT NOT NULL,         -- the one that holds the text as it is now
        status TEXT NOT NULL,
        content TEXT,                -- NULL: deleted
        envelope TEXT,
        PRIMARY KEY (actor, session)
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS memsy_listing ON memsy_records (actor, created_at DESC, id DESC)",
    "CREATE INDEX IF NOT EXISTS memsy_events ON memsy_records (event)",
)
_file_error = partial(file_error, what="Memsy's records", option="path=")
_COLUMNS = "event, status, content, envelope"
_KEEP = f"""INSERT INTO memsy_records (actor, session, id, created_at, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (actor, session) DO NOTHING"""
_GET = f"SELECT {_COLUMNS} FROM memsy_records WHERE actor = ? AND session = ?"
_OF_EVENTS = f"SELECT {_COLUMNS} FROM memsy_records WHERE content IS NOT NULL AND event IN "
_PAGE = f"""SELECT {_COLUMNS} FROM memsy_records
    WHERE actor = ? AND content IS NOT NULL AND (created_at, id) < (?, ?)
    ORDER BY created_at DESC, id DESC LIMIT {PAGE}"""
_REPLACE = """UPDATE memsy_records SET event = ?, status = ?, content = ?, envelope = ?
    WHERE actor = ? AND session = ? AND content IS NOT NULL"""
_OWNERS = "SELECT min(envelope) FROM memsy_records WHERE content IS NOT NULL GROUP BY actor"
_SETTLE = "UPDATE memsy_records SET status = ? WHERE event = ?"
_REMOVE = """UPDATE memsy_records SET content = NULL, envelope = NULL
    WHERE actor = ? AND session = ? AND content IS NOT NULL"""


class Records:
    """The records of one organization at Memsy, in a file that the processes of one machine may share."""

    def __init__(self, path: Path) -> None:
        self._thread = SqliteThread(path, "openproto-memsy-records", _file_error)

    async def open(self) -> None:
        """Open or create the file."""

        def create(db: sqlite3.Connection) -> None:
            db.execute("PRAGMA journal_mode = wal")
            for statement in _SCHEMA:
                db.execute(statement)

        await self._thread.run(create)

    async def close(self) -> None:
        """Close the file."""
        await self._thread.close()

    async def keep(self, new: Sequence[Stored]) -> list[Kept]:
        """Keep new records, and return what is kept of them: of two under one key, the first."""

        def insert(db: sqlite3.Connection) -> list[Kept]:
            db.execute("BEGIN IMMEDIATE")
            kept: list[Kept] = []
            for stored in new:
                own, record = EventId.of(stored.record.id), stored.record
                db.execute(_KEEP, (own.token, own.session, record.id, to_micros(record.created_at), *_values(stored)))
                kept.append(_kept(db.execute(_GET, (own.token, own.session)).fetchone()))
            return kept

        return await self._thread.run(insert)

    async def get(self, actor: str, session: str) -> Kept | None:
        """Return the record that was added there."""
        row = await self._thread.run(lambda db: db.execute(_GET, (actor, session)).fetchone())
        return None if row is None else _kept(row)

    async def of_events(self, events: Collection[str]) -> dict[str, Stored]:
        """Return the records whose text is in one of these events, by event."""
        ids = list(events)

        def select(db: sqlite3.Connection) -> dict[str, Stored]:
            found: dict[str, Stored] = {}
            for start in range(0, len(ids), _MOST_PARAMETERS):
                part = ids[start : start + _MOST_PARAMETERS]
                for row in db.execute(f"{_OF_EVENTS} ({', '.join('?' * len(part))})", part):
                    stored = _stored(row)
                    found[stored.handle] = stored
            return found

        return await self._thread.run(select)

    async def page(self, actor: str, until: datetime | None, after: Stored | None) -> list[Stored]:
        """Return a page of the actor's records, newest first: those made by `until`, or those that follow `after`."""
        if after is not None:
            position = (to_micros(after.record.created_at), after.record.id)
        else:
            position = _LATEST if until is None else (to_micros(until) + 1, "")
        rows = await self._thread.run(lambda db: db.execute(_PAGE, (actor, *position)).fetchall())
        return [*map(_stored, rows)]

    async def owners(self) -> list[str]:
        """Return the users that have records."""
        return [owner_in(text) for (text,) in await self._thread.run(lambda db: db.execute(_OWNERS).fetchall())]

    async def replace(self, new: Stored) -> bool:
        """Put the record as it is now in the place of what it was; False where it was deleted meanwhile."""
        own = EventId.of(new.record.id)
        return await self._changed(_REPLACE, (*_values(new), own.token, own.session))

    async def remove(self, stored: Stored) -> bool:
        """Delete the record but for its key; False where it was deleted already."""
        own = EventId.of(stored.record.id)
        return await self._changed(_REMOVE, (own.token, own.session))

    async def settle(self, ended: Mapping[str, str]) -> None:
        """Note that events are no longer waited for."""

        def update(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.executemany(_SETTLE, [(status, event) for event, status in ended.items()])

        await self._thread.run(update)

    async def _changed(self, statement: str, values: tuple[Any, ...]) -> bool:
        return await self._thread.run(lambda db: db.execute(statement, values).rowcount > 0)


def _values(stored: Stored) -> tuple[str, str, str, str]:
    return (stored.handle, str(stored.record.status), stored.record.content, stored.to_text())


def _kept(row: tuple[Any, ...]) -> Kept:
    return "deleted" if row[2] is None else _stored(row)


def _stored(row: tuple[Any, ...]) -> Stored:
    event, status, content, envelope = row
    return Stored.from_text(envelope, content, handle=event, status=status)
