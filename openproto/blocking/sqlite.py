"""A small SQLite file that openproto keeps next to a backend: one thread, one connection, and only bounded waits."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from openproto.blocking.abort import CallAborted, current_abort
from openproto.blocking.threads import Threads
from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError

T = TypeVar("T")

_BUSY_OR_FAILING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
_CLOSE_TIMEOUT = 0.5
_LOCK_POLL_SECONDS = 0.02


class SqliteThread:
    """A thread with its own connection to a file, which is created, with its folder, where it is missing.

    Processes may share the file: one waits up to `lock_timeout` seconds for another's lock. `typed_error` turns what
    SQLite and the file system raise into the protocol's errors.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        typed_error: Callable[[sqlite3.Error | OSError], OpenProtoError],
        *,
        lock_timeout: float = 5.0,
    ) -> None:
        self._path = path
        self._threads = Threads(1, name)
        self._typed_error = typed_error
        self._lock_timeout = lock_timeout
        self._connection: sqlite3.Connection | None = None

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Return `function(connection)`, what it wrote committed; tried again while another process holds a lock."""
        return await self._threads(self._work, function)

    async def close(self) -> None:
        """Close the connection in its thread; one that still waits for a lock then gives up and does so itself."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    await self._threads(self._disconnect)
        finally:
            self._threads.close()

    def _work(self, function: Callable[[sqlite3.Connection], T]) -> T:
        deadline = time.monotonic() + self._lock_timeout
        try:
            while True:
                # SQLite would wait for a lock by itself, but then nothing could end that wait.
                current_abort().check()
                try:
                    return self._once(function)
                except sqlite3.OperationalError as error:
                    if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                        raise
                time.sleep(_LOCK_POLL_SECONDS)
        except CallAborted:
            self._disconnect()
            raise
        except (sqlite3.Error, OSError) as error:
            raise self._typed_error(error) from error

    def _once(self, function: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        with self._connection as connection:  # commits, or rolls back
            return function(connection)

    def _connect(self) -> sqlite3.Connection:
        make_private_file(self._path)  # who wrote what is nobody else's business
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0)
        connection.execute("PRAGMA synchronous = full")
        connection.execute("PRAGMA secure_delete = on")  # what is removed is overwritten
        return connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def make_private_file(path: Path) -> None:
    """Create a missing file, which only this user may read, with its folder; raise OSError where that is impossible.

    One that exists is not opened: closing it would end every lock that this process holds on it, as POSIX has it, and
    SQLite's other connections would go on without theirs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)


def file_error(error: sqlite3.Error | OSError, *, what: str, option: str) -> OpenProtoError:
    """Return the typed error for a file of `what` that cannot be made, is busy, or is something else."""
    if isinstance(error, OSError):
        return ProviderError(f"the file of {what} cannot be made: {error.strerror}; look at {option}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in _BUSY_OR_FAILING:
        return ProviderUnavailableError(f"the file of {what} cannot be used now ({name}); try again soon")
    return ProviderError(f"the file in {option} does not hold {what}, or is damaged ({name}); name another file")
