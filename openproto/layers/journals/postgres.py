"""An audit journal in PostgreSQL, for programs on several machines. asyncpg is imported when it opens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from openproto.blocking.threads import Threads
from openproto.errors import (
    OpenProtoError,
    ProviderError,
    ProviderUnavailableError,
    ScopeDeniedError,
    UnauthorizedError,
)
from openproto.layers.journals.journal import ACTION, Journal
from openproto.provider import AuditEntries
from openproto.requests import AuditQuery
from openproto.stores.audit_buffer import AuditRow

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

T = TypeVar("T")

_CONNECTIONS = 2
_SECONDS = 5.0  # for connecting, for a free connection, and for any one statement

_OPTIONS: dict[str, Any] = {
    "timeout": _SECONDS,
    "command_timeout": _SECONDS,
    "statement_cache_size": 0,  # works behind a PgBouncer too, and the statements are few and small
    "server_settings": {"application_name": "openproto-audit"},
}

# Any number will do, as long as it is the same for all: CREATE ... IF NOT EXISTS fails when two run it at once.
_CREATE = """
SELECT pg_advisory_xact_lock(8101238471123455);
CREATE SCHEMA IF NOT EXISTS {schema};
CREATE TABLE IF NOT EXISTS {schema}.audit (
    number bigint GENERATED ALWAYS AS IDENTITY,
    user_id text COLLATE "C" NOT NULL,
    timestamp timestamptz NOT NULL,
    app text,
    action text NOT NULL,
    memory_id text COLLATE "C",
    scope text,
    request_id text
);
CREATE INDEX IF NOT EXISTS audit_listing ON {schema}.audit (user_id, timestamp DESC, number DESC);
CREATE UNIQUE INDEX IF NOT EXISTS audit_adds ON {schema}.audit (user_id, memory_id) WHERE action = 'add';
"""
_APPEND = """
INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
ON CONFLICT (user_id, memory_id) WHERE action = 'add' DO NOTHING
"""
_ENTRIES = """
SELECT user_id, timestamp, app, ACTION AS action, memory_id, scope, request_id FROM {schema}.audit
WHERE user_id = $1 AND ($2::text IS NULL OR app = $2) AND ($3::text IS NULL OR memory_id = $3)
  AND timestamp >= coalesce($4, '-infinity'::timestamptz)
ORDER BY timestamp DESC, number DESC LIMIT $5
""".replace("ACTION", ACTION)


class PostgresJournal(Journal):
    """Keeps entries in the table `audit` of its own schema, created where missing."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._schema = schema
        self._pool: asyncpg.Pool | None = None

    @property
    def place(self) -> str:
        """The schema; the URL may hold a password."""
        return f"PostgreSQL, schema {self._schema}"

    async def open(self) -> None:
        """Connect, and create the table if it is missing and this role may."""
        threads = Threads(1, "openproto-audit-import")
        try:
            asyncpg = await threads(import_module, "asyncpg")
        finally:
            threads.close()
        with contextlib.suppress(ValueError):  # whose text repeats parts of the URL
            self._pool = await _typed(asyncpg.create_pool(self._url, min_size=1, max_size=_CONNECTIONS, **_OPTIONS))
        if self._pool is None:
            raise ProviderError("audit= is not a PostgreSQL URL, such as postgresql://user:password@host/database")
        # Asked first: a role that may only write to the table may not even say CREATE ... IF NOT EXISTS.
        if not await self._use(lambda db: db.fetchval("SELECT to_regclass($1)", f"{self._schema}.audit_adds")):
            await self._use(lambda db: db.execute(_CREATE.format(schema=self._schema)))

    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Write the entries in one statement."""
        columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(AuditRow._fields)
        await self._use(lambda db: db.execute(_APPEND.format(schema=self._schema), *columns))

    async def entries(self, query: AuditQuery) -> AuditEntries:
        """Return the entries."""
        arguments = (query.user_id, query.app, query.memory_id, query.since, query.limit)
        rows = await self._use(lambda db: db.fetch(_ENTRIES.format(schema=self._schema), *arguments))
        return [AuditRow(*row).entry() for row in rows]

    async def close(self) -> None:
        """Close every connection at once."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.terminate()

    async def _use(self, work: Callable[[PoolConnectionProxy], Awaitable[T]]) -> T:
        if self._pool is None:
            raise ProviderUnavailableError("the client was closed while this call was running; use an open one")
        pool = self._pool
        connection = await _typed(pool.acquire(timeout=_SECONDS))
        try:
            return await _typed(work(connection))
        except asyncio.CancelledError:
            connection.terminate()  # ends the statement without waiting for the server to agree
            raise
        finally:
            await pool.release(connection, timeout=_SECONDS)


async def _typed(work: Awaitable[T]) -> T:
    """Return what `work` returns; asyncpg's errors become the protocol's."""
    import asyncpg

    try:
        return await work
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
        raise _typed_error(error) from error


def _typed_error(error: BaseException) -> OpenProtoError:
    import asyncpg

    if isinstance(error, asyncpg.InvalidAuthorizationSpecificationError):
        return UnauthorizedError("the audit journal's PostgreSQL refuses the role or its password: look at audit=")
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return ScopeDeniedError("the role in audit= may neither use the journal's table nor make one")
    lasting = (asyncpg.SyntaxOrAccessError, asyncpg.InvalidCatalogNameError, ValueError)
    if isinstance(error, lasting):
        return ProviderError(f"the audit journal's PostgreSQL failed with {type(error).__name__}: look at audit=")
    return ProviderUnavailableError(
        f"the audit journal's PostgreSQL takes no entries now ({type(error).__name__}); try again soon"
    )
