"""The connections of the postgres provider: bounded waits, releases that never hold up a caller, typed errors.

Every verb is one statement outside an explicit transaction, so nothing is half done when a call is cancelled and there
is no ROLLBACK that a second cancellation could hit. What remains after a cancellation is a server that is still being
asked to stop: the connection goes back to the pool once it has, in the background, or is closed when it takes too long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from openproto.errors import InvalidRequestError, ProviderUnavailableError
from openproto_adapters.postgres.citus.cluster import Cluster
from openproto_adapters.postgres.connecting import Connector, address, tls_error
from openproto_adapters.postgres.errors import CAUGHT, typed_error

T = TypeVar("T")

# How long a cancelled statement may take to end before its connection is given up: PROTOCOL 4.4 wants the place in
# the pool free again within half a second.
RELEASE_TIMEOUT = 0.4

# A server that notices a vanished client ends its query. The statements are written for one plan for all values,
# and neither planning them for each call nor compiling them pays (measured: 0.3 ms a call).
SESSION_SETTINGS = {
    "application_name": "openproto",
    "client_connection_check_interval": "200ms",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}


# A round through asyncpg's own release is two tasks and four turns of the loop, more than a `get` costs besides. So the
# connections that the pool keeps open in any case stay at hand for the next call, and go back after so many seconds:
# the pool counts their statements, closes idle ones, and replaces those of an older generation.
KEPT_AT_HAND = 10.0


class Database(NamedTuple):
    """What a pool finds: the schema that holds pgvector's types, and the Citus cluster where it is one."""

    vector_schema: str
    cluster: Cluster | None = None


class PoolOptions(NamedTuple):
    """How many connections there may be, how long to wait for one (seconds), and how many statements each keeps."""

    minimum: int
    maximum: int
    acquire_timeout: float
    connect_timeout: float
    statement_cache_size: int


class _Lent(NamedTuple):
    connection: PoolConnectionProxy
    until: float


class Pool:
    """A pool of asyncpg connections on one event loop."""

    def __init__(
        self,
        url: str,
        pool: asyncpg.Pool,
        connector: Connector,
        database: Database,
        options: PoolOptions,
        unsettled: set[int],
    ) -> None:
        self.database = database
        self._url = url
        self._pool = pool
        self._connector = connector
        self._options = options
        self._releases: set[asyncio.Task[None]] = set()
        self._at_hand: list[_Lent] = []
        self._waiting = 0
        self._unsettled = unsettled

    @classmethod
    async def connect(
        cls,
        url: str,
        options: PoolOptions,
        prepare: Callable[[asyncpg.Connection], Awaitable[Database]],
        name: str = "url",
    ) -> Pool:
        """Return an open pool, or raise the typed error that says why not.

        `prepare` sees that the database has the tables, and returns what it found. `name` is the option that the URL
        comes from.
        """
        connector = Connector()
        try:
            connection, settings = await _first_connection(connector, url, options)
            try:
                database = await prepare(connection)
            finally:
                connection.terminate()
            unsettled: set[int] = set()
            if database.cluster is not None and len(settings) > 1:
                settings = {**settings, **database.cluster.settings(options.connect_timeout)}
            pool = await _create(connector, url, options, settings, database.vector_schema, unsettled)
            return cls(url, pool, connector, database, options, unsettled)
        except asyncio.CancelledError:
            await connector.close(RELEASE_TIMEOUT)
            raise
        except TimeoutError as error:
            raise ProviderUnavailableError(
                f"PostgreSQL at {address(url)} did not answer within {options.connect_timeout:g} s: is it reachable "
                "from here?"
            ) from error
        except (ValueError, *CAUGHT) as error:
            if (fault := tls_error(error, url)) is not None:
                raise fault from None
            if not isinstance(error, ValueError):
                raise typed_error(error, address(url)) from error
            # asyncpg's own text repeats parts of the URL, the password among them: worded below, without it
        raise InvalidRequestError(
            f"{name}= is not a PostgreSQL URL, such as postgresql://user:password@host:5432/database",
            provider="postgres",
        )

    def fetch(self, sql: str, *args: Any) -> Awaitable[list[asyncpg.Record]]:
        """Run one statement and return its rows."""
        return self.use(lambda connection: connection.fetch(sql, *args))

    async def execute(self, script: str) -> None:
        """Run a script without arguments, as one transaction."""
        await self.use(lambda connection: connection.execute(script))

    async def use(self, work: Callable[[PoolConnectionProxy], Awaitable[T]]) -> T:
        """Return what `work` returns on a connection of the pool; asyncpg's errors become the protocol's."""
        try:
            connection, until = lent = self._at_hand_now() or await self._lend()
            try:
                result = await work(connection)
            except BaseException:
                self._unsettled.add(connection.get_server_pid())
                self._release_later(connection)
                raise
            if self._waiting or len(self._at_hand) >= self._options.minimum or until < time.monotonic():
                # The server is done, so this waits for nothing; asyncpg shields it from a cancellation here.
                await self._pool.release(connection)
            else:
                self._at_hand.append(lent)
            return result
        except CAUGHT as error:
            raise tls_error(error, self._url) or typed_error(error, address(self._url)) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PoolConnectionProxy]:
        """Return a connection that reads one unchanging state of the database for as long as the block lasts."""
        try:
            connection, _ = self._at_hand_now() or await self._lend()
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    yield connection
            finally:
                self._unsettled.add(connection.get_server_pid())
                self._release_later(connection)
        except CAUGHT as error:
            raise tls_error(error, self._url) or typed_error(error, address(self._url)) from error

    async def close(self) -> None:
        """Close every connection at once; statements still running fail."""
        self._pool.terminate()
        if self._releases:
            await asyncio.wait(self._releases, timeout=RELEASE_TIMEOUT)
        await self._connector.close(RELEASE_TIMEOUT)

    def _at_hand_now(self) -> _Lent | None:
        while self._at_hand:
            if not (lent := self._at_hand.pop()).connection.is_closed():
                return lent
            self._release_later(lent.connection)
        return None

    async def _lend(self) -> _Lent:
        return _Lent(await self._acquire(), time.monotonic() + KEPT_AT_HAND)

    async def _acquire(self) -> PoolConnectionProxy:
        if self._pool.get_idle_size():
            return await self._pool.acquire()  # at once: a deadline would only cost time
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._options.acquire_timeout)
        except TimeoutError as error:
            raise ProviderUnavailableError(
                f"no connection became free within {self._options.acquire_timeout:g} s: all "
                f"{self._options.maximum} were busy or the server did not answer; raise pool_max= or acquire_timeout="
            ) from error
        finally:
            self._waiting -= 1

    def _release_later(self, connection: PoolConnectionProxy) -> None:
        """Give the connection back in the background, where that waits until the server has stopped."""
        task = asyncio.create_task(self._pool.release(connection, timeout=RELEASE_TIMEOUT), name="openproto-release")
        self._releases.add(task)
        task.add_done_callback(self._released)

    def _released(self, task: asyncio.Task[None]) -> None:
        self._releases.discard(task)
        if not task.cancelled():
            task.exception()  # asyncpg has closed the connection then; marked as seen


async def _first_connection(
    connector: Connector, url: str, options: PoolOptions
) -> tuple[asyncpg.Connection, dict[str, str]]:
    """Return a connection, and the session settings that the other side of it takes."""
    settings = SESSION_SETTINGS
    try:
        return await connector(url, **_arguments(options, settings)), settings
    except (asyncpg.ProtocolViolationError, asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
        # PgBouncer refuses settings that it does not track, and an old server those that it does not know.
        settings = {"application_name": SESSION_SETTINGS["application_name"]}
        return await connector(url, **_arguments(options, settings)), settings


def _arguments(options: PoolOptions, settings: dict[str, str]) -> dict[str, Any]:
    return {
        "timeout": options.connect_timeout,
        "statement_cache_size": options.statement_cache_size,
        "server_settings": settings,
    }


async def _create(
    connector: Connector,
    url: str,
    options: PoolOptions,
    settings: dict[str, str],
    vector_schema: str,
    unsettled: set[int],
) -> asyncpg.Pool:
    async def prepare(connection: asyncpg.Connection) -> None:
        for name in ("halfvec", "sparsevec"):
            await connection.set_type_codec(name, schema=vector_schema, format="binary", encoder=bytes, decoder=bytes)

    async def settle(connection: asyncpg.Connection) -> None:
        # In place of asyncpg's own reset, a round trip each time: no statement of ours changes the session. But one
        # that was cancelled between its parsing and its running leaves a transaction open.
        if (pid := connection.get_server_pid()) in unsettled:
            unsettled.discard(pid)
            await connection.execute("ROLLBACK")

    pool = await asyncpg.create_pool(
        url,
        min_size=0,  # what is lost is opened anew by who needs it: asyncpg would try before, and log each failure
        max_size=options.maximum,
        **_arguments(options, settings),
        init=prepare,
        reset=settle,
        connect=connector,
    )
    try:
        first = await asyncio.gather(*(pool.acquire() for _ in range(options.minimum)))
        for connection in first:
            await pool.release(connection)
    except BaseException:
        pool.terminate()
        raise
    return pool
