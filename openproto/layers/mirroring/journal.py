"""The mirror's journal: which records may have changed, in an SQLite file that outlives the process.

An entry is written before its write goes to the primary and removed when the record's state has reached the mirror. It
holds no content, only a reference, so applying one twice, or one whose write never happened, does no harm.

An entry stands on the pad (`pad.py`) first, and then in the file, which is in WAL mode with `synchronous = normal`.
Both are in the system's hands and survive the end of the process, kill -9 included, without waiting for the disk.
Entries of the last moments before a power failure may be lost; the comparison of samples, or of a whole store by
`openproto migrate`, finds what they would have carried.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from openproto.blocking.sqlite import SqliteThread, file_error, make_private_file
from openproto.blocking.threads import Threads
from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError
from openproto.fanout import shielded
from openproto.layers.mirroring.pad import Pad, Row, pad_of, read

_log = logging.getLogger(__name__)

Kind: TypeAlias = Literal["record", "add", "key", "user"]
"""A record by its id; an add by its idempotency key; a record by its user's key; any record of the user."""

APPEND_SECONDS = 0.25
"""How long a write waits for its entry to be committed where the pad has no room; then it goes on all the same."""

UNSURE_SECONDS = 2.0
"""How long the outcome of a write that was cut off is waited for: it may still be on its way."""

_MOST_UNCOMMITTED = 100_000
_MOST_JOURNALS = 64

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pending (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, user_id TEXT, ref TEXT NOT NULL,
    at REAL NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS ids (id TEXT PRIMARY KEY, mirror_id TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refused (id TEXT PRIMARY KEY, user_id TEXT, code TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value ANY) STRICT, WITHOUT ROWID;
"""
_APPEND = "INSERT OR IGNORE INTO pending (seq, kind, user_id, ref, at) VALUES (?, ?, ?, ?, ?)"
_COUNT = "INSERT INTO facts VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
_TELL = "INSERT OR REPLACE INTO facts VALUES (?, ?)"

_file_error = partial(file_error, what="the mirror's journal", option="journal in mirror=")


class Reference(NamedTuple):
    """What a write is about to change."""

    kind: Kind
    user_id: str | None
    ref: str = ""


class Entry(NamedTuple):
    """A reference in the journal."""

    seq: int
    kind: Kind
    user_id: str | None
    ref: str


class MirrorJournal:
    """The journal of one open client; `between` names the two sides, which the journal belongs to.

    A client has its journal alone: where `path` is in use the next free one of path-1, path-2, ... is taken, and what
    clients that have ended left in the others is taken over.
    """

    def __init__(self, path: Path, between: str) -> None:
        self.path = self._first = path
        self.backlog = 0
        self.changed = asyncio.Event()
        """Set when there may be something to apply."""
        self._between = between
        self._lock: sqlite3.Connection | None = None
        self._threads: Threads | None = None
        self._writer: SqliteThread | None = None
        self._reader: SqliteThread | None = None
        self._pad: Pad | None = None
        self._is_down = False
        self._seq = 0
        self._in_flight: set[int] = set()
        self._waiting: list[tuple[str, Sequence[Sequence[Any]]]] = []
        self._taken = self._settled = 0
        self._committing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Take a free journal, made where it is missing, with what an earlier client left in it."""
        self._threads = Threads(1, "openproto-mirror-lock")
        self.path, self._lock = await self._threads(_claim, self._first)
        self._writer = SqliteThread(self.path, "openproto-mirror-write", _file_error)
        self._reader = SqliteThread(self.path, "openproto-mirror-read", _file_error)
        on_pad = await self._threads(read, pad_of(self.path))
        between, self._seq, self.backlog = await self._writer.run(
            partial(_create, between=self._between, on_pad=on_pad)
        )
        if between != self._between:
            raise ProviderError(
                "the journal in mirror= belongs to another pair of providers; name another file for this one"
            )
        try:
            self._pad = await self._threads(Pad, pad_of(self.path))
        except OSError as error:
            raise _file_error(error) from error
        self.changed.set()

    async def close(self) -> None:
        """Write what waits, and release the file."""
        reader, writer, threads = self._reader, self._writer, self._threads
        self._reader = self._threads = None
        try:
            if writer is not None and self._waiting:
                await self.commit()
        except OpenProtoError as error:
            _log.error("mirror: entries could not be written at closing, and are lost: %s", error.message)
        finally:
            self._writer = None
            pad, self._pad = self._pad, None
            if pad is not None:
                pad.close()
            for thread in (reader, writer):
                if thread is not None:
                    await thread.close()
            if threads is not None:
                threads.close()
            lock, self._lock = self._lock, None
            if lock is not None:
                lock.close()

    async def note(self, references: Iterable[Reference]) -> list[int]:
        """Write entries that stay untouched until they are released, and return their numbers.

        A journal that does not take them in time delays the write no further, and never fails it.
        """
        now = time.time()
        seqs: list[int] = []
        rows: list[tuple[Any, ...]] = []
        for reference in references:
            self._seq += 1
            seqs.append(self._seq)
            rows.append((self._seq, *reference, now))
        self._in_flight.update(seqs)
        self.backlog += len(seqs)
        self._do(_APPEND, rows)
        if self._pad is not None and self._pad.write(rows):
            return seqs
        try:
            async with asyncio.timeout(APPEND_SECONDS):
                await self.commit()
        except (OpenProtoError, TimeoutError) as error:
            if not self._is_down:
                text = "mirror: the journal takes no entries now (%s); they are kept in memory"
                _log.error(text, type(error).__name__)
            self._is_down = True
        except BaseException:
            self.remove(seqs)  # the primary was not asked
            raise
        else:
            self._is_down = False
        return seqs

    def resolve(self, seq: int, id: str) -> None:
        """Say which record an add made."""
        self._do("UPDATE pending SET kind = 'record', ref = ? WHERE seq = ?", [(id, seq)])

    def release(self, seqs: Iterable[int]) -> None:
        """Let entries be applied: their write has ended."""
        self._in_flight.difference_update(seqs)
        self.changed.set()

    def release_later(self, seqs: Sequence[int]) -> None:
        """Let entries be applied after a while: nobody knows whether their write has ended."""
        asyncio.get_running_loop().call_later(UNSURE_SECONDS, self.release, seqs)

    def append(self, references: Iterable[Reference]) -> None:
        """Write entries that may be applied at once, without waiting for that."""
        rows = []
        for reference in references:
            self._seq += 1
            rows.append((self._seq, *reference, time.time()))
        self.backlog += len(rows)
        self._do(_APPEND, rows)
        self.changed.set()

    def postpone(self, reference: Reference) -> None:
        """Write an entry that is applied after a while."""
        self.append([reference])
        self._in_flight.add(self._seq)
        self.release_later([self._seq])

    def remove(self, seqs: Sequence[int]) -> None:
        """Take entries out: they are applied, or their write changed nothing."""
        self._in_flight.difference_update(seqs)
        self.backlog -= len(seqs)
        self._do("DELETE FROM pending WHERE seq = ?", [(seq,) for seq in seqs])

    async def batch(self, limit: int) -> list[Entry]:
        """Return the oldest entries that may be applied."""
        # What is taken out, or even begins, while the file is read is not to be applied either.
        held, last = set(self._in_flight), self._seq
        await self.commit()
        found: list[Entry] = []
        after = 0
        while len(found) < limit:
            statement = "SELECT seq, kind, user_id, ref FROM pending WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
            rows = await self._read(statement, (after, last, limit))
            if not rows:
                break
            after = rows[-1][0]
            found += [Entry(*row) for row in rows if row[0] not in held]
        return found[:limit]

    async def mirror_ids(self, ids: Iterable[str]) -> dict[str, str]:
        """Return the mirror's ids of records that could not keep their own."""
        wanted = list(ids)
        marks = ", ".join("?" * len(wanted))
        return dict(await self._read(f"SELECT id, mirror_id FROM ids WHERE id IN ({marks})", wanted))  # noqa: S608

    async def map(self, ids: Mapping[str, str | None]) -> None:
        """Remember the mirror's ids; None forgets one."""
        self._do("DELETE FROM ids WHERE id = ?", [(id,) for id in ids])
        self._do("INSERT INTO ids VALUES (?, ?)", [pair for pair in ids.items() if pair[1] is not None])
        await self.commit()

    def refuse(self, id: str, user_id: str | None, code: str) -> None:
        """Remember that the mirror does not take a record as it is now."""
        self._do("INSERT OR REPLACE INTO refused VALUES (?, ?, ?)", [(id, user_id, code)])

    def accept(self, ids: Iterable[str]) -> None:
        """Forget refusals: the mirror has the records, or they are gone."""
        self._do("DELETE FROM refused WHERE id = ?", [(id,) for id in ids])

    def count(self, name: str, number: int = 1) -> None:
        """Add to a figure."""
        self._do(_COUNT, [(name, number)])

    def tell(self, name: str, value: str | None) -> None:
        """Keep a fact in place of the earlier one of that name."""
        self._do(_TELL, [(name, value)])

    async def take_over(self) -> None:
        """Take what clients that have ended left in the other journals."""
        if self._threads is None:
            return
        for other in await self._threads(lambda: list(journals(self._first))):
            if other == self.path or (left := await self._threads(_leave, other, self._between)) is None:
                continue
            references, ids, last, lock = left
            try:
                self.append(references)
                await self.map(ids)
                await self._threads(_clear, other, last)
            finally:
                lock.close()

    async def commit(self) -> None:
        """Return when all that was to be written until now is in the file; writes that come together share a commit."""
        wanted = self._taken
        while self._settled < wanted:
            if self._committing is None or self._committing.done():
                self._committing = asyncio.create_task(self._commit(), name="openproto-mirror-journal")
                self._committing.add_done_callback(lambda task: task.cancelled() or task.exception())
            # Cancelling one caller must not take the commit from the others.
            await shielded(self._committing)

    def _do(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            self._waiting.append((statement, rows))
            self._taken += 1
        if len(self._waiting) > _MOST_UNCOMMITTED:
            del self._waiting[0]
            self._settled += 1

    async def _commit(self) -> None:
        work, self._waiting = self._waiting, []
        try:
            if self._writer is None:
                raise ProviderUnavailableError("the client was closed while this call was running; use an open one")
            await self._writer.run(partial(_write, work=work))
        except BaseException:
            self._waiting[:0] = work
            raise
        self._settled += len(work)
        if self._pad is not None and not self._waiting:
            self._pad.wipe()

    async def _read(self, statement: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._reader is None:
            raise ProviderUnavailableError("the client was closed while this call was running; use an open one")
        return await self._reader.run(lambda db: db.execute(statement, values).fetchall())


def journals(path: Path) -> Iterator[Path]:
    """Yield the journals that clients of one configuration have made, which run at the same time."""
    return (each for number in range(_MOST_JOURNALS) if (each := _numbered(path, number)).exists())


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number}{path.suffix}") if number else path


def _claim(path: Path) -> tuple[Path, sqlite3.Connection]:
    for number in range(_MOST_JOURNALS):
        each = _numbered(path, number)
        try:
            lock = _locked(each)
        except (sqlite3.Error, OSError) as error:
            raise _file_error(error) from error
        if lock is not None:
            return each, lock
    raise ProviderUnavailableError(
        f"{_MOST_JOURNALS} clients have a mirror's journal at this path open; give others another one"
    )


def _locked(path: Path) -> sqlite3.Connection | None:
    """Return what holds the journal's lock until it is closed, or the process ends; None where another has it.

    A lock of SQLite's on a file next to the journal: the system releases it with the process, on every platform.
    """
    file = path.with_name(path.name + ".lock")
    make_private_file(file)
    lock = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        lock.close()
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return None
    return lock


def _create(db: sqlite3.Connection, between: str, on_pad: Sequence[Row]) -> tuple[str, int, int]:
    db.execute("PRAGMA journal_mode = wal")
    for statement in _SCHEMA.split(";"):
        db.execute(statement)
    db.execute("INSERT OR IGNORE INTO facts VALUES ('between', ?)", (between,))
    ((found,),) = db.execute("SELECT value FROM facts WHERE name = 'between'")
    if found == between:
        db.executemany(_APPEND, on_pad)
    ((last, pending),) = db.execute("SELECT coalesce(max(seq), 0), count(*) FROM pending")
    return found, last, pending


def _write(db: sqlite3.Connection, work: Sequence[tuple[str, Sequence[Sequence[Any]]]]) -> None:
    db.execute("PRAGMA synchronous = normal")
    db.execute("BEGIN IMMEDIATE")
    for statement, rows in work:
        db.executemany(statement, rows)


def _leave(path: Path, between: str) -> tuple[list[Reference], dict[str, str | None], int, sqlite3.Connection] | None:
    """Return what stands in the journal of a client that has ended, and its lock; None where there is nothing."""
    lock = _locked(path)
    if lock is None:
        return None
    db = sqlite3.connect(path, isolation_level=None)
    try:
        ((found,),) = db.execute("SELECT value FROM facts WHERE name = 'between'").fetchall() or [(None,)]
        if found == between:
            db.executemany(_APPEND, read(pad_of(path)))
        rows = db.execute("SELECT seq, kind, user_id, ref FROM pending ORDER BY seq").fetchall()
        if found != between or not rows:
            lock.close()
            return None
        ids = dict(db.execute("SELECT id, mirror_id FROM ids"))
        return [Reference(*row[1:]) for row in rows], ids, rows[-1][0], lock
    except sqlite3.Error:
        lock.close()  # another client's file is another client's trouble
        return None
    finally:
        db.close()


def _clear(path: Path, last: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.execute("DELETE FROM pending WHERE seq <= ?", (last,))
        pad_of(path).unlink(missing_ok=True)
    finally:
        db.close()
