"""Giving every memory of a store the vectors of another embedder while the store is in use.

New vectors gather in a separate column; what still lacks one is found through a partial index, so a run that was
stopped goes on where it was, and memories that are added or changed meanwhile simply come up as well. The covering
index for the new vectors is built next to the old one. Only the last step holds writers up, for as long as it takes to
embed the last few memories and to rename a column: from then on the new model is the store's model, and statements of
clients with the old one refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from asyncpg.pool import PoolConnectionProxy

from openproto.errors import ConflictError, ProviderUnavailableError
from openproto.provider import ReindexProgress
from openproto.stores.indexer import Indexer
from openproto.stores.words import RULES
from openproto_adapters.postgres.pool import Pool
from openproto_adapters.postgres.queries import Queries
from openproto_adapters.postgres.schema import cover_index, includes_embedding
from openproto_adapters.postgres.vectors import index_text, pack_halfvec

BATCH = 256
LOCK_TIMEOUT = "3s"
LOCK_TRIES = 20

_START_OVER = "UPDATE {schema}.memories SET next_embedding = NULL WHERE next_embedding IS NOT NULL"
_WANT = "UPDATE {schema}.store SET next_model = $1, next_dim = $2"
_WANTED = "SELECT model, dim, next_model, next_dim FROM {schema}.store"
_COUNT = "SELECT count(*), count(next_embedding) FROM {schema}.memories"
_BATCH = f"""
SELECT id, user_id, content, updated_at FROM {{schema}}.memories
WHERE next_embedding IS NULL AND id > $1 ORDER BY id LIMIT {BATCH}
"""
# A memory that was changed since it was read keeps waiting for its vector.
_KEEP = """
UPDATE {schema}.memories m SET next_embedding = new.embedding
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::{vector}.halfvec[])
    AS new (id, user_id, updated_at, embedding)
WHERE m.id = new.id AND m.user_id = new.user_id AND m.updated_at IS NOT DISTINCT FROM new.updated_at
  AND EXISTS (SELECT FROM {schema}.store WHERE next_model = $5 AND next_dim = $6)
"""
_WORDS_BATCH = f"""
SELECT id, user_id, content, updated_at FROM {{schema}}.memories WHERE id > $1 ORDER BY id LIMIT {BATCH}
"""
_KEEP_WORDS = """
UPDATE {schema}.memories m SET words = new.words, more_words = new.more_words
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::{vector}.sparsevec[], $5::{vector}.sparsevec[])
    AS new (id, user_id, updated_at, words, more_words)
WHERE m.id = new.id AND m.user_id = new.user_id AND m.updated_at IS NOT DISTINCT FROM new.updated_at
"""
HOLD_WRITERS = f"""
SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
LOCK TABLE {{schema}}.memories IN EXCLUSIVE MODE;
"""
_SWITCH = """
DROP INDEX {schema}.memories_by_user;
DROP INDEX {schema}.memories_to_embed;
ALTER TABLE {schema}.memories DROP COLUMN embedding;
ALTER TABLE {schema}.memories RENAME COLUMN next_embedding TO embedding;
ALTER TABLE {schema}.memories ADD COLUMN next_embedding {vector}.halfvec STORAGE MAIN;
ALTER INDEX {schema}.memories_by_user_next RENAME TO memories_by_user;
UPDATE {schema}.store SET model = next_model, dim = next_dim, next_model = NULL, next_dim = NULL;
"""


async def reindex(
    pool: Pool, queries: Queries, indexer: Indexer[Any], report: Callable[[ReindexProgress], None]
) -> None:
    """Re-embed every memory with `indexer`'s embedder, reporting after each batch."""
    await _renew_words(pool, queries)
    run = _Run(pool, queries, indexer, report)
    await run.begin()
    await run.embed_most()
    if await run.is_finished():
        return
    await run.build_index()
    for _ in range(LOCK_TRIES):
        await run.embed_most()
        if await run.switch():
            return
    raise ProviderUnavailableError(
        "the vectors are ready, but the table was never free for the last step; run it again at a quieter moment"
    )


async def _renew_words(pool: Pool, queries: Queries) -> None:
    """Renew the words of every memory where they were made by other rules; a run that was stopped starts again."""
    last = UUID(int=0)
    ((rules,),) = await pool.fetch(*queries.operator("SELECT rules FROM {schema}.store"))
    while rules != RULES and (batch := await pool.fetch(*queries.operator(_WORDS_BATCH, last))):
        packed = await asyncio.to_thread(lambda rows: [index_text(row["content"]) for row in rows], batch)
        columns = ([row[name] for row in batch] for name in ("id", "user_id", "updated_at"))
        words = ([words.first for words in packed], [words.others for words in packed])
        await pool.fetch(*queries.operator(_KEEP_WORDS, *columns, *words))
        last = batch[-1]["id"]
    await pool.fetch(*queries.operator("UPDATE {schema}.store SET rules = $1 WHERE rules <> $1", RULES))


class _Run:
    """One re-embedding under way."""

    def __init__(
        self, pool: Pool, queries: Queries, indexer: Indexer[Any], report: Callable[[ReindexProgress], None]
    ) -> None:
        self._pool, self._queries, self._indexer, self._report = pool, queries, indexer, report
        self._wanted = (indexer.model, indexer.dim)
        self._total = self._done = 0

    async def begin(self) -> None:
        """Say which model is wanted, drop vectors gathered for another one, and index what lacks a vector."""
        (store,) = await self._pool.fetch(*self._queries.operator(_WANTED))
        if tuple(store)[2:] != self._wanted:
            await self._pool.fetch(*self._queries.operator(_START_OVER))
            await self._pool.fetch(*self._queries.operator(_WANT, *self._wanted))
        schema = self._queries.schema
        await self._pool.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.memories_to_embed")
        await self._pool.execute(
            f"CREATE INDEX CONCURRENTLY memories_to_embed ON {schema}.memories (id) WHERE next_embedding IS NULL"
        )
        ((self._total, self._done),) = await self._pool.fetch(*self._queries.operator(_COUNT))

    async def embed_most(self) -> None:
        """Embed what lacks a vector, oldest first, until a round over all of it finds less than a batch."""
        if self._indexer.model is None:
            return
        found = BATCH
        while found >= BATCH:
            found, last = 0, UUID(int=0)
            while batch := await self._pool.fetch(*self._queries.operator(_BATCH, last)):
                await self._pool.fetch(*self._queries.operator(_KEEP, *await self._vectors(batch), *self._wanted))
                if await self.is_finished():
                    return
                found, last = found + len(batch), batch[-1]["id"]
                self._done += len(batch)
                self._total = max(self._total, self._done)
                self._report(ReindexProgress(self._done, self._total))
                if len(batch) < BATCH:
                    break  # what is written from now on must not keep this round going for ever

    async def build_index(self) -> None:
        """Build the covering index for the new vectors next to the one in use."""
        schema = self._queries.schema
        column = "next_embedding" if includes_embedding(self._indexer.dim) else None
        await self._pool.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {schema}.memories_by_user_next")
        await self._pool.execute(cover_index(schema, "memories_by_user_next", column, concurrently=True))

    async def switch(self) -> bool:
        """Make the new model the store's model; False where the table was busy or much lacks a vector still."""
        try:
            await self._pool.use(self._switch)
        except ProviderUnavailableError:  # the lock was not to be had in time
            await asyncio.sleep(0.5)
        return await self.is_finished()

    async def _switch(self, connection: PoolConnectionProxy) -> None:
        async with connection.transaction():
            await self._run_each(connection, HOLD_WRITERS)
            if await self.is_finished():
                return
            if self._indexer.model is not None:
                batch = await connection.fetch(*self._queries.operator(_BATCH, UUID(int=0)))
                if len(batch) == BATCH:
                    return
                await connection.fetch(*self._queries.operator(_KEEP, *await self._vectors(batch), *self._wanted))
            await self._run_each(connection, _SWITCH)

    async def _run_each(self, connection: PoolConnectionProxy, script: str) -> None:
        for statement in (
            self._queries.sql(script).strip().removesuffix(";").split(";")
        ):  # Citus passes on one at a time
            await connection.execute(statement)

    async def _vectors(self, batch: Sequence[Any]) -> tuple[list[Any], ...]:
        """Return the columns that `_KEEP` takes."""
        vectors = await self._indexer.embed_many([row["content"] for row in batch])
        return (
            [row["id"] for row in batch],
            [row["user_id"] for row in batch],
            [row["updated_at"] for row in batch],
            [pack_halfvec(vector) for vector in vectors if vector is not None],
        )

    async def is_finished(self) -> bool:
        """Say whether the store has the new model; ConflictError where another run wants another one by now."""
        (store,) = await self._pool.fetch(*self._queries.operator(_WANTED))
        model, dim, next_model, next_dim = store
        if (next_model, next_dim) == self._wanted:
            return (model, dim) == self._wanted and model is None
        if next_model is None and (model, dim) == self._wanted:
            return True
        raise ConflictError(
            f"another re-embedding has begun, to {next_model!r}; this one, to {self._wanted[0]!r}, "
            "stopped; run the one you want"
        )
