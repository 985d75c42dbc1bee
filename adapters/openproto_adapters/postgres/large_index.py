"""The index of one large user: made and dropped while the store is in use.

Triggers post the words of what this user writes from now on; then one snapshot of the table is posted in the place of
what they posted before it, so that each memory counts once, whatever is written meanwhile. The vectors get a partial
index, built concurrently. Searches use all of it once it is complete, and what a run that was stopped left behind is
gone over again: words from their beginning, vectors only where their index is missing or half built.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from openproto.errors import InvalidRequestError, NotFoundError, ProviderUnavailableError
from openproto.provider import ReindexProgress
from openproto.requests import SearchQuery
from openproto.stores.indexer import Indexer
from openproto_adapters.postgres.large_search import Searching, literal
from openproto_adapters.postgres.pool import Pool
from openproto_adapters.postgres.queries import Queries
from openproto_adapters.postgres.reindexing import LOCK_TIMEOUT, LOCK_TRIES
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.vectors import PackedWords

LARGE = 20_000
"""Up to about so many memories of one user the exact search is as fast."""

MOST_DIMENSIONS = 4_000
"""pgvector indexes no longer ones."""

BATCH = 50_000
SAMPLE = 20
"""Memories whose texts are searched for to measure recall."""

ENOUGH_RECALL = 0.95

_POLL = 1.0
_MOST_MEMORY_MB = 2_048

_BEGIN = "INSERT INTO {schema}.large_users (user_id) VALUES ($1) ON CONFLICT DO NOTHING"
_READY = "UPDATE {schema}.large_users SET ready_at = now(), recall = $2 WHERE user_id = $1"
_FORGET = "DELETE FROM {schema}.large_users WHERE user_id = $1"
_FORGET_WORDS = "DELETE FROM {schema}.postings WHERE user_id = $1"
_COUNT = "SELECT count(*) FROM {schema}.memories m WHERE m.user_id = $1"
_POST = f"""
WITH part AS MATERIALIZED (
    SELECT m.id, m.created_at, m.words, m.more_words FROM {{schema}}.memories m
    WHERE m.user_id = $1 AND (m.created_at, m.id) > ($2, $3) ORDER BY m.created_at, m.id LIMIT {BATCH}
), posted AS (
    INSERT INTO {{schema}}.postings (user_id, place, change, count, memories)
    SELECT $1, place, 1, count(*), CASE place WHEN 0 THEN '{{}}' ELSE array_agg(id) END
    FROM part CROSS JOIN unnest(0 || {{schema}}.places(words, more_words)) AS place GROUP BY place
)
SELECT created_at, id, (SELECT count(*) FROM part) FROM part ORDER BY created_at DESC, id DESC LIMIT 1
"""
_SAMPLE = f"""
SELECT m.content FROM (
    SELECT m.id, m.user_id FROM {{schema}}.memories m WHERE m.user_id = $1 ORDER BY md5(m.id::text) LIMIT {SAMPLE}
) AS chosen JOIN {{schema}}.memories m USING (id, user_id)
"""
_STATE = "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)"
_PROGRESS = (
    "SELECT tuples_done FROM pg_stat_progress_create_index WHERE relid = to_regclass($1) AND phase LIKE '%tuples%'"
)

# The largest of a sample of blocks, and who has an index already: counting everybody's would mean reading all.
_LARGEST = """
WITH sampled AS (
    SELECT m.user_id FROM {schema}.memories m TABLESAMPLE SYSTEM (least(100, 100 * 50000 / greatest(1, (
        SELECT reltuples FROM pg_class WHERE oid = '{schema}.memories'::regclass))))
    GROUP BY m.user_id ORDER BY count(*) DESC LIMIT 20
)
SELECT user_id, memories, u.ready_at IS NOT NULL AS is_ready, u.recall FROM (
    SELECT user_id, (SELECT count(*) FROM {schema}.memories m WHERE m.user_id = one.user_id) AS memories
    FROM (SELECT user_id FROM sampled UNION SELECT user_id FROM {schema}.large_users) AS one
) AS counted LEFT JOIN {schema}.large_users u USING (user_id)
WHERE memories > $1 OR u.user_id IS NOT NULL ORDER BY memories DESC, user_id LIMIT 5
"""

_TRIGGERS = """
DROP TRIGGER IF EXISTS <name>_added ON {schema}.memories;
DROP TRIGGER IF EXISTS <name>_changed ON {schema}.memories;
"""
_NEW_TRIGGERS = """
CREATE TRIGGER <name>_added AFTER INSERT ON {schema}.memories FOR EACH ROW
    WHEN (NEW.user_id = <user>) EXECUTE FUNCTION {schema}.post_words();
CREATE TRIGGER <name>_changed AFTER UPDATE OF words, more_words OR DELETE ON {schema}.memories FOR EACH ROW
    WHEN (OLD.user_id = <user>) EXECUTE FUNCTION {schema}.post_words();
"""
_NEAR = """
CREATE INDEX CONCURRENTLY <name> ON {schema}.memories
    USING hnsw ((embedding::{vector}.halfvec(<dim>)) {vector}.halfvec_ip_ops) WHERE user_id = <user>
"""


class LargeIndex:
    """The index of one user of an open store."""

    def __init__(self, pool: Pool, queries: Queries, indexer: Indexer[PackedWords], user_id: str) -> None:
        self._pool, self._queries, self._indexer, self._user_id = pool, queries, indexer, user_id
        self._name = "large_" + blake2b(user_id.encode(), digest_size=8).hexdigest()

    async def make(self, searching: Searching, report: Callable[[ReindexProgress], None]) -> float:
        """Make the index, and return the share of the best ten of an exact search that a search by it finds."""
        if _is_distributed(self._pool):
            raise InvalidRequestError("a Citus cluster takes no index for one user: searches stay exact there")
        if (self._indexer.dim or 0) > MOST_DIMENSIONS:
            raise InvalidRequestError(
                f"vectors of more than {MOST_DIMENSIONS:,} dimensions cannot be indexed: re-embed the store with a "
                "smaller embedder first (`openproto reindex`)"
            )
        ((memories,),) = await self._fetch(_COUNT, self._user_id)
        if not memories:
            raise NotFoundError(
                "there is nothing to index: no memory of this user is stored; `openproto users` lists who has any"
            )
        progress = _Progress(report, memories, 2 if self._indexer.model else 1)
        await self._fetch(_BEGIN, self._user_id)
        await self._hold_writers(_NEW_TRIGGERS)
        await self._pool.use(lambda connection: self._post_words(connection, progress))
        if self._indexer.model is not None:
            await self._index_vectors(progress)
        await self._fetch(_READY, self._user_id, None)
        recall = await self._recall(searching, progress)
        await self._fetch(_READY, self._user_id, recall)
        return recall

    async def drop(self) -> None:
        """Drop the index; searches are exact again."""
        await self._fetch(_FORGET, self._user_id)
        await self._hold_writers("")
        await self._fetch(_FORGET_WORDS, self._user_id)
        await self._pool.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {self._queries.schema}.{self._name}")

    async def renew_vectors(self) -> None:
        """Index the vectors where the index of the vectors is not there."""
        ((memories,),) = await self._fetch(_COUNT, self._user_id)
        await self._index_vectors(_Progress(lambda _: None, memories, 1))

    async def _hold_writers(self, script: str) -> None:
        """Replace the triggers by those of the script, for which nobody may be writing just then."""
        script = f"SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true);" + self._named(_TRIGGERS + script)
        for left in reversed(range(LOCK_TRIES)):
            try:
                await self._pool.execute(script)
                break
            except ProviderUnavailableError:
                if not left:
                    raise
                await asyncio.sleep(0.5)

    async def _post_words(self, connection: PoolConnectionProxy, progress: _Progress) -> None:
        after: list[Any] = [datetime.min.replace(tzinfo=UTC), UUID(int=0)]
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("SELECT set_config('work_mem', '64MB', true)")
            await connection.fetch(*self._acting(_FORGET_WORDS, self._user_id))
            while rows := await connection.fetch(*self._acting(_POST, self._user_id, *after)):
                ((*after, posted),) = rows
                progress.add(posted)

    async def _index_vectors(self, progress: _Progress) -> None:
        name = f"{self._queries.schema}.{self._name}"
        state = await self._pool.fetch(_STATE, name)
        if not (state and state[0][0]):
            await self._pool.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            building = asyncio.create_task(self._pool.use(lambda connection: self._build(connection, progress)))
            try:
                while not building.done():
                    await asyncio.wait([building], timeout=_POLL)
                    with contextlib.suppress(ProviderUnavailableError):  # of a pool without a connection to spare
                        rows = await self._pool.fetch(_PROGRESS, f"{self._queries.schema}.memories")
                        progress.show(rows[0][0] if rows else 0)
                await building
            finally:
                building.cancel()
        progress.add(progress.memories)

    async def _build(self, connection: PoolConnectionProxy, progress: _Progress) -> None:
        # Building is several times as fast as long as all of it fits into memory.
        megabytes = 64 + progress.memories * (2 * (self._indexer.dim or 0) + 512) // 2**20
        await connection.execute(f"SET maintenance_work_mem = '{min(megabytes, _MOST_MEMORY_MB)}MB'")
        try:
            await connection.execute(self._named(_NEAR))
        finally:
            with contextlib.suppress(Exception):  # of a connection that is lost, or is being cancelled
                await connection.execute("RESET maintenance_work_mem")

    async def _recall(self, searching: Searching, progress: _Progress) -> float:
        found = wanted = 0
        for (content,) in await self._fetch(_SAMPLE, self._user_id):
            query = SearchQuery(query=content, user_id=self._user_id)
            indexed = await self._indexer.index_query(query.query)
            best = {row[0] for row in await searching.exact(query, indexed, self._indexer)}
            rows = await searching.by_index(query, indexed, self._indexer)
            found += len(best if rows is None else best & {row[0] for row in rows})
            wanted += len(best)
            progress.show(0)
        return found / wanted if wanted else 1.0

    async def _fetch(self, template: str, *args: Any) -> list[Any]:
        return await self._pool.fetch(*self._acting(template, *args))

    def _acting(self, template: str, *args: Any) -> tuple[Any, ...]:
        return self._queries.acting(acting_for(self._user_id), template, *args)

    def _named(self, template: str) -> str:
        template = self._queries.sql(template).replace("<name>", self._name).replace("<dim>", str(self._indexer.dim))
        return template.replace("<user>", literal(self._user_id))


async def renew_vectors(pool: Pool, queries: Queries, indexer: Indexer[PackedWords]) -> None:
    """Index the vectors that a re-embedding has made; until then a search finds them by looking at all of them."""
    if indexer.model is not None and (indexer.dim or 0) <= MOST_DIMENSIONS:
        for (user_id,) in await pool.fetch(*queries.operator("SELECT user_id FROM {schema}.large_users")):
            await LargeIndex(pool, queries, indexer, user_id).renew_vectors()


class _Progress:
    """How far the index is, in memories: each of them counts once for its words and once for its vector."""

    def __init__(self, report: Callable[[ReindexProgress], None], memories: int, parts: int) -> None:
        self.memories = memories
        self._report, self._total = report, memories * parts
        self._done = 0

    def add(self, done: int) -> None:
        self._done += done
        self.show(0)

    def show(self, more: int) -> None:
        self._report(ReindexProgress(min(self._done + more, self._total), self._total))


async def describe_large(pool: Pool, queries: Queries) -> str | None:
    """Return how the users with the most memories are searched, and what to do about it; None where all are small."""
    if _is_distributed(pool):
        return None
    return "; ".join(_described(*row) for row in await pool.fetch(*queries.operator(_LARGEST, LARGE))) or None


def _is_distributed(pool: Pool) -> bool:
    cluster = pool.database.cluster
    return cluster is not None and cluster.is_distributed


def _described(user_id: str, memories: int, is_ready: bool, recall: float | None) -> str:
    command = f"openproto index --user {shlex.quote(user_id)}"
    if not is_ready:
        return f"{user_id!r} has {memories:,} memories, and each search reads all of them: `{command}` makes an index"
    told = f"{user_id!r} has {memories:,} memories and an index"
    if recall is None:
        return f"{told} whose recall was not measured: `{command}` measures it"
    if recall < ENOUGH_RECALL:
        return f"{told} that finds {recall:.0%} of the best ten: `{command} --drop` goes back to the exact search"
    return f"{told} that finds {recall:.0%} of the best ten"
