"""The file behind the sqlite provider: one writer and a few readers, each in a thread, each really interruptible."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from queue import SimpleQueue
from typing import Literal, TypeAlias, TypeVar

from openproto.blocking.threads import Threads
from openproto.errors import ProviderError, ProviderUnavailableError
from openproto_adapters.sqlite.errors import CLOSED, typed_error
from openproto_adapters.sqlite.row_security import secure_rows
from openproto_adapters.sqlite.schema import SCHEMA_VERSION, check_version, schema_version, upgrade

_log = logging.getLogger(__name__)

T = TypeVar("T")
Synchronous: TypeAlias = Literal["full", "normal"]

_SAME_FILE = (
    "the database file was moved, deleted, or replaced while it was open: {what}. Close this client, put the file back "
    "or keep the new one, and open another client"
)

# How many steps of SQLite's virtual machine, well under a millisecond of them, pass between looks at a cancellation.
_STEPS_BETWEEN_LOOKS = 20_000
_LOCK_POLL_SECONDS = 0.02


class _Job:
    """Whether the call that a worker thread is busy with was given up."""

    def __init__(self) -> None:
        self.cancelled = False


class Database:
    """Runs functions over connections to one file: `read` in a snapshot, `write` in a transaction."""

    def __init__(self, path: Path, *, readers: int, lock_timeout: float, synchronous: Synchronous) -> None:
        self.path = path
        self._path_text = str(path)  # looked at before every call: asking a Path takes longer
        self._lock_timeout = lock_timeout
        self._synchronous = synchronous
        self._readers = _Lane("openproto-sqlite-read", readers, self._connect_to_read)
        self._searcher = _Lane("openproto-sqlite-search", 1, self._connect_to_read)
        self._writer = _Lane("openproto-sqlite-write", 1, self._connect_to_write)
        self._identity: tuple[int, int] | None = None
        self._is_immutable = False
        self.read_only: str | None = None
        """What it costs that the file may only be read, where that is so."""

    async def open(self) -> None:
        """Bring an existing file to the newest schema; a missing one is made by the first write, never by a read.

        Raise ProviderError where the file can be neither used nor made.
        """
        await self._writer.prepare(self._prepare)

    @property
    def exists(self) -> bool:
        """Whether there is a file by now."""
        return self._identity is not None or self.path.exists()

    async def read(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`, which sees one unchanging state of the file."""
        return await self.read_once(lambda connection: _snapshot(connection, function))

    async def search(self, function: Callable[[Connection], T]) -> T:
        """Return what `read` does, in the one thread of all searches.

        They compute more than they wait, so that several threads would only take the interpreter from each other.
        """
        return await self._read_in(self._searcher, lambda connection: _snapshot(connection, function))

    async def read_once(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`, which makes a single statement: that is a snapshot without a transaction."""
        return await self._read_in(self._readers, function)

    async def _read_in(self, lane: _Lane, function: Callable[[Connection], T]) -> T:
        def job(connection: Connection) -> T:
            self._check_identity("nothing was read")
            return self._when_free(connection, function)

        return await lane.run(job)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[[Callable[[Connection], T]], Awaitable[T]]]:
        """Return what runs one function after another over one unchanging state of the file, which may take long."""
        lane = _Lane("openproto-sqlite-snapshot", 1, self._connect_to_read)

        def begin(connection: Connection) -> None:
            self._check_identity("nothing was read")
            connection.execute("BEGIN")
            self._when_free(connection, lambda c: c.execute("SELECT 1 FROM store").fetchall())

        try:
            await lane.run(begin)
            yield lane.run
        finally:
            await lane.close()  # which ends the transaction

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)` once what it wrote is committed; nothing is kept when it raises."""

        def job(connection: Connection) -> T:
            self._check_identity("nothing of this call was written")
            self._take_write_lock(connection)
            try:
                result = function(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._check_identity("what this call wrote is not in the file at that path")
            return result

        return await self._writer.run(job)

    async def close(self) -> None:
        """Interrupt what runs and close every connection."""
        try:
            await self._readers.close()
        finally:
            try:
                await self._searcher.close()
            finally:
                # Last: SQLite clears up behind the file only in a connection that is alone when it closes.
                await self._writer.close()

    def _connect_to_write(self, job: _Job) -> Connection:
        if self.read_only is not None:
            raise ProviderError(f"{self.path} may only be read ({self.read_only}); open it as a user who may write")
        self._check_identity("nothing of this call was written")
        if self._identity is None and not self.path.exists():
            self._make_file()
        connection = self._connect(job, f"{self.path.absolute().as_uri()}?mode=rw")
        try:
            self._when_free(connection, lambda c: c.execute(f"PRAGMA synchronous = {self._synchronous}"))
            self._upgrade(connection)
            self._when_free(connection, Connection.secure)
            self._identity = _identity(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_to_read(self, job: _Job) -> Connection:
        if self._identity is None and not self.path.exists():
            # Nothing was ever written: what is asked is asked of an empty store that is nowhere.
            connection = self._connect(job, ":memory:")
            upgrade(connection)
            connection.secure()
            connection.is_passing = True
            return connection
        if self._identity is None:  # another process made it meanwhile
            self._prepare(job)
        self._check_identity("nothing was read")
        mode = "rw" if self.read_only is None else "ro"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        connection = self._connect(job, uri + ("&immutable=1" if self._is_immutable else ""))
        try:
            self._when_free(connection, Connection.secure)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, job: _Job, uri: str) -> Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0, factory=Connection
        )
        connection.work_for(job)
        return connection

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Memories are private: only this user may read the file (SQLite gives its companions the same mode).
            self.path.touch(mode=0o600)
        except OSError as error:
            raise ProviderError(f"{self.path} cannot be created: {error.strerror}; choose another path=") from error

    def _prepare(self, job: _Job) -> None:
        """Look at the file, if there is one, and bring it to the newest schema; see what may be done with it."""
        try:
            _identity(self.path)
        except FileNotFoundError:
            self._check_place()
            return
        except OSError as error:
            raise ProviderError(f"{self.path} cannot be opened: {error.strerror}; choose another path=") from error
        if os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK):
            self._connect_to_write(job).close()
        else:
            self._prepare_to_read(job)

    def _check_place(self) -> None:
        """Raise ProviderError where the first write could not make the file."""
        nearest = next((folder for folder in self.path.absolute().parents if folder.exists()), self.path.parent)
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            reason = "Permission denied" if nearest.is_dir() else "Not a directory"
            raise ProviderError(f"{self.path} cannot be created: {reason}; choose another path=")

    def _prepare_to_read(self, job: _Job) -> None:
        self.read_only = "writes are refused, and reads leave no entry in the audit log"
        try:
            version = self._version_read(job)
        except sqlite3.OperationalError:
            # Beside a file in WAL mode SQLite wants to keep two more, and in this folder it cannot.
            self._is_immutable = True
            self.read_only += "; what others write meanwhile, or left in the -wal file, is not seen"
            version = self._version_read(job)
        if version < SCHEMA_VERSION:
            raise ProviderError(
                f"{self.path} has tables of an older openproto (schema {version}) and may only be read: open it once "
                "where it may be written, or read a copy"
            )
        check_version(self.path, version)
        self._identity = _identity(self.path)
        _log.warning("sqlite: %s is opened for reading only: %s", self.path, self.read_only)

    def _version_read(self, job: _Job) -> int:
        immutable = "&immutable=1" if self._is_immutable else ""
        with closing(self._connect(job, f"{self.path.absolute().as_uri()}?mode=ro{immutable}")) as connection:
            return self._when_free(connection, schema_version)

    def _upgrade(self, connection: Connection) -> None:
        version = self._when_free(connection, schema_version)
        check_version(self.path, version)
        if version < SCHEMA_VERSION:
            self._when_free(connection, lambda c: c.execute("PRAGMA journal_mode = wal"))
            self._take_write_lock(connection)
            try:
                upgrade(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def _check_identity(self, what: str) -> None:
        """Raise ProviderError where the path leads to another file than the one that was opened, or to none."""
        try:
            is_same = self._identity is None or _identity(self._path_text) == self._identity
        except OSError:
            is_same = False
        if not is_same:
            raise ProviderError(_SAME_FILE.format(what=what))

    def _take_write_lock(self, connection: Connection) -> None:
        self._when_free(connection, lambda c: c.execute("BEGIN IMMEDIATE"))

    def _when_free(self, connection: Connection, action: Callable[[Connection], T]) -> T:
        """Return `action(connection)` once no other process's lock refuses it.

        SQLite would wait by itself, but that could not be cancelled.
        """
        deadline = time.monotonic() + self._lock_timeout
        while True:
            if connection.job.cancelled:
                raise ProviderUnavailableError(CLOSED)
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
    _acting_user: tuple[str | None, ...] = ()
    is_passing = False
    """Whether it serves one job and is closed then."""

    def work_for(self, job: _Job) -> None:
        """Serve `job` from now on, for no user yet."""
        self.job = job
        self._acting_user = ()
        self.set_progress_handler(lambda: job.cancelled, _STEPS_BETWEEN_LOOKS)

    def secure(self) -> None:
        """Show and change only rows of the user that this connection acts for."""
        self.create_function("acting_user", 0, lambda: self._acting_user[0], deterministic=True)
        secure_rows(self)

    def act_for(self, user_id: str | None) -> None:
        """Let what follows meet the rows of this user, or with None, as operators do, of everybody."""
        self._acting_user = (user_id,)


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
        return await self._in_thread(lambda job: self._work(job, function))

    async def prepare(self, function: Callable[[_Job], None]) -> None:
        """Run what comes before there is a connection."""
        await self._in_thread(lambda job: _typed(lambda: function(job)))

    async def _in_thread(self, work: Callable[[_Job], T]) -> T:
        job = _Job()
        self._running.add(job)
        try:
            return await self._threads(work, job)
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
            if connection is not None and connection.is_passing:
                connection.close()
                connection = None
            self._idle.put(connection)

    def _close_one(self) -> None:
        if (connection := self._idle.get()) is not None:
            connection.close()


def _snapshot(connection: Connection, function: Callable[[Connection], T]) -> T:
    connection.execute("BEGIN")
    try:
        return function(connection)
    finally:
        connection.execute("ROLLBACK")


def _typed(action: Callable[[], None]) -> None:
    try:
        action()
    except sqlite3.Error as error:
        raise typed_error(error) from error


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
