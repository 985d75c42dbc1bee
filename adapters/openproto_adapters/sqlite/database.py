"""The file behind the sqlite provider: one writer and a few readers, each in a thread, each really interruptible."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, TypeAlias, TypeVar

from openproto.blocking.threads import Threads
from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError

T = TypeVar("T")
Synchronous: TypeAlias = Literal["full", "normal"]

SCHEMA_VERSION = 1

# How many steps of SQLite's virtual machine, well under a millisecond of them, pass between looks at a cancellation.
_STEPS_BETWEEN_LOOKS = 20_000
_LOCK_POLL_SECONDS = 0.02


class _Job:
    """Whether the call that a worker thread is busy with was given up."""

    def __init__(self) -> None:
        self.cancelled = False


class Database:
    """Runs functions over connections to one file: `read` in a snapshot, `write` in a transaction of its own."""

    def __init__(self, path: Path, *, readers: int, lock_timeout: float, synchronous: Synchronous) -> None:
        self.path = path
        self._lock_timeout = lock_timeout
        self._synchronous = synchronous
        self._readers = _Lane("openproto-sqlite-read", readers, self._connect)
        self._writer = _Lane("openproto-sqlite-write", 1, self._connect)

    async def open(self) -> None:
        """Create the file and its tables where they are missing; raise ProviderError where that cannot be."""
        await self._writer.run(self._create)

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`, which sees one unchanging state of the file."""

        def snapshot(connection: Connection) -> T:
            connection.execute("BEGIN")
            try:
                return function(connection)
            finally:
                connection.execute("ROLLBACK")

        return await self.read_once(snapshot)

    async def read_once(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`, which makes a single statement: that is a snapshot without a transaction."""
        return await self._readers.run(lambda connection: self._when_free(connection, function))

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)` once what it wrote is committed; nothing is kept when it raises."""

        def job(connection: Connection) -> T:
            self._take_write_lock(connection)
            try:
                result = function(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return await self._writer.run(job)

    async def close(self) -> None:
        """Interrupt what runs and close every connection."""
        try:
            await self._readers.close()
        finally:
            # One after the other: SQLite clears up behind the file only in a connection that is alone when it closes.
            await self._writer.close()

    def _connect(self, job: _Job) -> Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Memories are private: only this user may read the file (SQLite gives its companions the same mode).
            self.path.touch(mode=0o600)
        except OSError as error:
            raise ProviderError(f"{self.path} cannot be created: {error.strerror}; choose another path=") from error
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=0, factory=Connection
        )
        connection.work_for(job)
        try:
            self._when_free(connection, lambda c: c.execute(f"PRAGMA synchronous = {self._synchronous}"))
        except BaseException:
            connection.close()
            raise
        return connection

    def _create(self, connection: Connection) -> None:
        version = self._when_free(connection, _version)
        if version > SCHEMA_VERSION:
            raise ProviderError(
                f"{self.path} was written by a newer openproto (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade openproto"
            )
        self._when_free(connection, lambda c: c.execute("PRAGMA journal_mode = wal"))
        self._take_write_lock(connection)
        for statement in _statements():
            connection.execute(statement)
        connection.execute("INSERT OR IGNORE INTO store (only_row, version) VALUES (1, ?)", (SCHEMA_VERSION,))
        connection.execute("COMMIT")

    def _take_write_lock(self, connection: Connection) -> None:
        self._when_free(connection, lambda c: c.execute("BEGIN IMMEDIATE"))

    def _when_free(self, connection: Connection, action: Callable[[Connection], T]) -> T:
        """Return `action(connection)` once no other process's lock refuses it.

        SQLite would wait by itself, but nobody could cancel that.
        """
        deadline = time.monotonic() + self._lock_timeout
        while True:
            if connection.job.cancelled:
                raise ProviderUnavailableError(_CLOSED)
            try:
                return action(connection)
            except sqlite3.OperationalError as error:
                busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not busy or time.monotonic() > deadline:
                    raise
                time.sleep(_LOCK_POLL_SECONDS)


class Connection(sqlite3.Connection):
    """A connection that knows the job it works for, and stops a running statement when that is cancelled."""

    job = _Job()

    def work_for(self, job: _Job) -> None:
        """Serve `job` from now on."""
        self.job = job
        self.set_progress_handler(lambda: job.cancelled, _STEPS_BETWEEN_LOOKS)


class _Lane:
    """`width` threads with a connection each; connections are made when first needed."""

    def __init__(self, name: str, width: int, connect: Callable[[_Job], Connection]) -> None:
        self._threads = Threads(width, name)
        self._connect = connect
        self._idle: SimpleQueue[Connection | None] = SimpleQueue()
        for _ in range(width):
            self._idle.put(None)
        self._width = width
        self._running: set[_Job] = set()

    async def run(self, function: Callable[[Connection], T]) -> T:
        job = _Job()
        self._running.add(job)
        try:
            return await self._threads(self._work, job, function)
        finally:
            # Reached early only by a cancellation: the statement that runs for this job now stops.
            job.cancelled = True
            self._running.discard(job)

    async def close(self) -> None:
        for job in self._running:
            job.cancelled = True
        try:
            for _ in range(self._width):
                await self._threads(self._close_one)
        finally:
            self._threads.close()

    def _work(self, job: _Job, function: Callable[[Connection], T]) -> T:
        connection = self._idle.get()
        try:
            connection = connection or self._connect(job)
            connection.work_for(job)
            return function(connection)
        except sqlite3.Error as error:
            raise typed_error(error) from error
        finally:
            self._idle.put(connection)

    def _close_one(self) -> None:
        if (connection := self._idle.get()) is not None:
            connection.close()


def typed_error(error: sqlite3.Error) -> OpenProtoError:
    """Return the protocol's error for SQLite's, by its result code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    kind, text = _ERRORS.get(code, (ProviderError, f"SQLite failed with result code {code}"))
    return kind(text, provider="sqlite")


_CLOSED = "the client was closed while this call was running"
_ERRORS: dict[int, tuple[type[ProviderError], str]] = {
    sqlite3.SQLITE_BUSY: (
        ProviderUnavailableError,
        "the database file is locked: another process has been writing to it for longer than lock_timeout",
    ),
    sqlite3.SQLITE_FULL: (
        ProviderUnavailableError,
        "the disk that holds the database file is full: nothing was written; free some space and try again",
    ),
    sqlite3.SQLITE_IOERR: (
        ProviderUnavailableError,
        "reading or writing the database file failed: nothing was written; look at the disk and its mount",
    ),
    sqlite3.SQLITE_INTERRUPT: (ProviderUnavailableError, _CLOSED),
    sqlite3.SQLITE_CANTOPEN: (
        ProviderError,
        "the database file cannot be opened: look at path=, its folder, and their permissions",
    ),
    sqlite3.SQLITE_READONLY: (ProviderError, "the database file or its folder is read-only for this user"),
    sqlite3.SQLITE_PERM: (ProviderError, "this user may not open the database file"),
    sqlite3.SQLITE_NOTADB: (
        ProviderError,
        "the file at path= is not an SQLite database: choose another path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        ProviderError,
        "the database file is damaged: restore it from a copy, or save what is left with sqlite3's .recover",
    ),
}


def _version(connection: Connection) -> int:
    """Return the version of the file's tables, 0 where it has none."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store'").fetchone() is None:
        return 0
    (version,) = connection.execute("SELECT version FROM store").fetchone() or (0,)
    return int(version)


def _statements() -> list[str]:
    text = files("openproto_adapters.sqlite").joinpath("schema.sql").read_text(encoding="utf-8")
    lines = (line.partition("--")[0] for line in text.splitlines())
    return [statement for statement in "\n".join(lines).split(";") if statement.strip()]
