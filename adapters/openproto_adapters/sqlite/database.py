"""The file behind the sqlite provider: one writer and a few readers, each in a thread, each really interruptible."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

from openproto.blocking.sqlite import make_private_file
from openproto.errors import ProviderError, ProviderUnavailableError
from openproto.stores.gathering import MOST, Gatherer
from openproto_adapters.sqlite.errors import CLOSED, as_typed, typed_error
from openproto_adapters.sqlite.lanes import Answers, Call, Connection, Job, Lane, Part
from openproto_adapters.sqlite.schema import SCHEMA_VERSION, check_version, schema_version, upgrade
from openproto_adapters.sqlite.word_index import Indexing

_log = logging.getLogger(__name__)

T = TypeVar("T")
Q = TypeVar("Q")
Synchronous: TypeAlias = Literal["full", "normal"]

_SAME_FILE = (
    "the database file was moved, deleted, or replaced while it was open: {what}. Close this client, put the file back "
    "or keep the new one, and open another client"
)

_LOCK_POLL_SECONDS = 0.02
_SEARCHING_SECONDS = 0.01  # how long the first of several searches waits at most for the others of its trip


class Database:
    """Runs functions over connections to one file: `read` in a snapshot, `write` in a transaction."""

    def __init__(self, path: Path, *, readers: int, lock_timeout: float, synchronous: Synchronous) -> None:
        self.path = path
        self._path_text = str(path)  # looked at before every call: asking a Path takes longer
        self._lock_timeout = lock_timeout
        self._synchronous = synchronous
        self._indexing = Indexing(self.write_alone)
        self._readers = Lane("openproto-sqlite-read", readers, self._connect_to_read)
        self._searcher = Lane("openproto-sqlite-search", 1, self._connect_to_read, self._indexing.look)
        self._writer = Lane("openproto-sqlite-write", 1, self._connect_to_write, self._indexing.look)
        self._gets: Gatherer[Call, Any] = Gatherer(
            lambda calls: self._readers.start(partial(self._read_together, calls), calls), Call.give_up, self._get_alone
        )
        self._writes: Gatherer[Call, Any] = Gatherer(
            lambda calls: self._writer.start(partial(self._write_together, calls), calls), Call.give_up
        )
        self._searches: Gatherer[Call, Any] = Gatherer(
            lambda calls: self._searcher.start(partial(self._search_together, calls), calls), Call.give_up
        )
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

        They compute more than they wait, so that several threads would only take the interpreter from each other. Those
        that are asked for at the same time share a trip to it, as many as take a few milliseconds.
        """
        return cast(T, await self._searches(Call(lambda connection: _snapshot(connection, function))))

    async def read_once(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)`, which makes a single statement: that is a snapshot without a transaction."""

        def job(connection: Connection) -> T:
            self._check_identity("nothing was read")
            return self._when_free(connection, function)

        return await self._readers.run(job)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Callable[[Callable[[Connection], T]], Awaitable[T]]]:
        """Return what runs one function after another over one unchanging state of the file, which may take long."""
        lane = Lane("openproto-sqlite-snapshot", 1, self._connect_to_read)

        def begin(connection: Connection) -> None:
            self._check_identity("nothing was read")
            connection.control("BEGIN")
            self._when_free(connection, lambda c: c.execute("SELECT 1 FROM store").fetchall())

        try:
            await lane.run(begin)
            yield lane.run
        finally:
            await lane.close()  # which ends the transaction

    def get(self, function: Answers[Q, T], request: Q) -> Awaitable[T]:
        """Return what `function`, which makes a single statement, answers to the request.

        Those of one time are read in one trip to a thread, which takes many times what a record does.
        """
        return self._gets(Part(function, request))

    async def _get_alone(self, call: Call) -> Any:
        (outcome,) = await self._readers.start(partial(self._read_together, [call]), [call])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def write(self, function: Callable[[Connection], T]) -> T:
        """Return `function(connection)` once what it wrote is committed; nothing is kept when it raises.

        Those that wait for the writer at the same time are one transaction, in which each can fail alone. So one may
        run twice, the first time for nothing.
        """
        return cast(T, await self._writes(Call(function)))

    async def write_part(self, function: Answers[Q, T], request: Q) -> T:
        """Return what `function` answers to the request, once what it wrote is committed.

        Requests that wait for the writer at the same time are passed to it together: to write rows a table at a time
        takes a fraction of the time. What it answers with an error must have left nothing behind.
        """
        return cast(T, await self._writes(Part(function, request)))

    async def write_alone(self, function: Callable[[Connection], T]) -> T:
        """Return what `write` does, for what takes long or must not run twice: in a transaction by itself."""

        def job(connection: Connection) -> T:
            (outcome,) = self._write_together([call], connection)
            if isinstance(outcome, Exception):
                raise outcome
            return cast(T, outcome)

        call = Call(function)
        return await self._writer.start(job, [call])

    def _search_together(self, calls: Sequence[Call], connection: Connection) -> list[Any]:
        self._check_identity("nothing was read")
        outcomes, started = list[Any](), time.perf_counter()
        for call in calls:
            connection.work_for(call)
            try:
                outcomes += self._when_free(connection, partial(_answers, [call]))
            except Exception as error:
                outcomes.append(as_typed(error))
        self._indexing.is_due = connection.should_index and not self.read_only
        spent = max(time.perf_counter() - started, 1e-6)
        self._searches.most = max(1, min(MOST, int(_SEARCHING_SECONDS * len(calls) / spent)))
        return outcomes

    def _read_together(self, calls: Sequence[Call], connection: Connection) -> list[Any]:
        self._check_identity("nothing was read")
        units = _alike(calls)
        return [one for unit in units for one in self._when_free(connection, partial(_answers, unit))]

    def _write_together(self, calls: Sequence[Call], connection: Connection) -> list[Any]:
        """Return what each call returned or raised, in a transaction that holds all but those that raised.

        Raise what parts raised together: then nothing is written, and each is sent again alone.
        """
        self._check_identity("nothing of this call was written")
        job = connection.job
        failed: dict[Call, Exception] = {}
        done: dict[Call, Any] = {}
        units = _alike(calls)
        is_committed = False
        while not is_committed and len(failed) < len(calls):
            connection.work_for(job)
            try:
                self._when_free(connection, lambda c: c.control("BEGIN IMMEDIATE"))
            except sqlite3.Error as error:  # another process has the lock: each need not wait for that again
                return [typed_error(error) for _ in calls]
            try:
                for unit in units:
                    if unit[0] not in failed:
                        # A call among others is given up by itself, and one alone with the job.
                        connection.work_for(unit[0] if len(unit) == 1 < len(calls) else job)
                        try:
                            done.update(zip(unit, _answers(unit, connection, saved=len(units) > 1), strict=True))
                        except Exception as error:
                            if len(unit) > 1:
                                raise
                            failed[unit[0]] = as_typed(error)
                            if not connection.in_transaction:  # SQLite took back what the others wrote as well
                                break
                if is_committed := connection.in_transaction:
                    connection.work_for(job)
                    connection.control("COMMIT" if len(failed) < len(calls) else "ROLLBACK")
            except BaseException:
                if connection.in_transaction:
                    connection.control("ROLLBACK")
                raise
        self._indexing.is_due = connection.should_index
        self._check_identity("what this call wrote is not in the file at that path")
        return [failed[call] if call in failed else done[call] for call in calls]

    async def close(self) -> None:
        """Interrupt what runs and close every connection."""
        async with AsyncExitStack() as last_first:
            for lane in (self._writer, self._searcher, self._readers):  # SQLite clears up behind the file in the last
                last_first.push_async_callback(lane.close)
            await self._indexing.close()

    def _connect_to_write(self, job: Job) -> Connection:
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

    def _connect_to_read(self, job: Job) -> Connection:
        if self._identity is None and not self.path.exists():
            # Nothing was ever written: what is asked is asked of an empty store that is nowhere.
            connection = self._connect(job, ":memory:")
            upgrade(connection)
            connection.secure()
            connection.stands_in_for = self.path
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

    def _connect(self, job: Job, uri: str) -> Connection:
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=0, factory=Connection
        )
        connection.work_for(job)
        return connection

    def _make_file(self) -> None:
        try:
            make_private_file(self.path)  # and SQLite gives its companions the same mode
        except OSError as error:
            raise ProviderError(f"{self.path} cannot be created: {error.strerror}; choose another path=") from error

    def _prepare(self, job: Job) -> None:
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

    def _prepare_to_read(self, job: Job) -> None:
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

    def _version_read(self, job: Job) -> int:
        immutable = "&immutable=1" if self._is_immutable else ""
        with closing(self._connect(job, f"{self.path.absolute().as_uri()}?mode=ro{immutable}")) as connection:
            return self._when_free(connection, schema_version)

    def _upgrade(self, connection: Connection) -> None:
        version = self._when_free(connection, schema_version)
        check_version(self.path, version)
        if version < SCHEMA_VERSION:
            self._when_free(connection, lambda c: c.execute("PRAGMA journal_mode = wal"))
            self._when_free(connection, lambda c: c.control("BEGIN IMMEDIATE"))
            try:
                upgrade(connection)
                connection.control("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.control("ROLLBACK")
                raise

    def _check_identity(self, what: str) -> None:
        """Raise ProviderError where the path leads to another file than the one that was opened, or to none."""
        try:
            is_same = self._identity is None or _identity(self._path_text) == self._identity
        except OSError:
            is_same = False
        if not is_same:
            raise ProviderError(_SAME_FILE.format(what=what))

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


def _snapshot(connection: Connection, function: Callable[[Connection], T]) -> T:
    connection.control("BEGIN")
    try:
        return function(connection)
    finally:
        connection.control("ROLLBACK")


def _identity(path: str | Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _alike(calls: Sequence[Call]) -> list[list[Call]]:
    """Return the calls in their order, those that are done in one step together."""
    return [[*unit] for _, unit in groupby(calls, attrgetter("kind"))]


def _answers(unit: Sequence[Call], connection: Connection, *, saved: bool = False) -> Sequence[Any]:
    """Return what the calls do to the file, which, when `saved`, another one's failure leaves alone."""
    wanted = [call for call in unit if not call.cancelled]
    if not wanted:
        return [ProviderUnavailableError(CLOSED) for _ in unit]
    if saved:
        connection.control("SAVEPOINT part")
    try:
        answers = unit[0].run(connection, wanted)
    except BaseException:
        if saved and connection.in_transaction:
            connection.control("ROLLBACK TO part")
            connection.control("RELEASE part")
        raise
    if saved:
        connection.control("RELEASE part")
    if len(wanted) == len(unit):
        return answers
    answer_of = dict(zip(wanted, answers, strict=True))
    return [answer_of[call] if call in answer_of else ProviderUnavailableError(CLOSED) for call in unit]
