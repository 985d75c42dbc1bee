"""Giving every memory of a file the vectors of another embedder while the file is in use.

New vectors gather in a separate column, and memories that lack one are found by that alone: so a run that was
stopped goes on where it was, and content that changes meanwhile simply comes round again. Only the last step, one
transaction, makes the new model the file's model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

from openproto.embedding import Vector
from openproto.errors import ConflictError
from openproto.provider import ReindexProgress
from openproto.stores.indexer import Indexer
from openproto.stores.words import RULES
from openproto_adapters.sqlite import word_index
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import pack_embedding

Batch: TypeAlias = list[tuple[int, str]]

BATCH = 256


async def reindex(database: Database, indexer: Indexer[Any], report: Callable[[ReindexProgress], None]) -> None:
    """Re-embed every memory with `indexer`'s embedder, reporting after each batch."""
    await _renew_words(database)
    run = _Run(indexer.model, indexer.dim)
    await database.write_alone(run.begin)
    while not await database.write_alone(run.finish):
        batch = await database.read(_next_batch)
        vectors = await indexer.embed_many([content for _, content in batch])
        await database.write_alone(partial(run.keep, batch=batch, vectors=vectors))
        report(await database.read(_progress))


async def _renew_words(database: Database) -> None:
    """Renew the words of every memory where they were made by other rules; a run that was stopped starts again."""

    def renew(db: Connection) -> bool:
        (rules,) = db.execute("SELECT rules FROM store").fetchone()
        if rules == RULES:
            return False
        db.act_for(None)
        batch = db.execute(
            "SELECT number, user_id, content FROM memories WHERE number > ? ORDER BY number LIMIT ?", (last[0], BATCH)
        ).fetchall()
        for number, user_id, content in batch:
            word_index.replace(db, number, word_index.terms_of(user_id, content))
        if not batch:
            db.execute("UPDATE store SET rules = ?", (RULES,))
        else:
            last[0] = batch[-1][0]
        return bool(batch)

    last = [0]
    while await database.write_alone(renew):
        pass


class _Run:
    """One re-embedding to `model`: what it does to the file, each step in one transaction."""

    def __init__(self, model: str | None, dim: int | None) -> None:
        self._wanted = (model, dim)

    def begin(self, db: Connection) -> None:
        """Say which model is wanted; vectors that were gathered for another one are of no use."""
        db.act_for(None)
        if db.execute("SELECT next_model, next_dim FROM store").fetchone() != self._wanted:
            db.execute("UPDATE main.memories SET next_embedding = NULL")
            db.execute("UPDATE store SET next_model = ?, next_dim = ?", self._wanted)

    def keep(self, db: Connection, batch: Batch, vectors: Sequence[Vector | None]) -> None:
        """Keep a batch of vectors; content that changed since it was read goes on waiting for its own."""
        db.act_for(None)
        if not self._is_finished(db):
            db.executemany(
                "UPDATE main.memories SET next_embedding = ? WHERE number = ? AND content = ?",
                (
                    (pack_embedding(vector), number, content)
                    for (number, content), vector in zip(batch, vectors, strict=True)
                    if vector is not None
                ),
            )

    def finish(self, db: Connection) -> bool:
        """Switch to the new model if nothing lacks a vector by now; say whether the file has that model."""
        if self._is_finished(db):
            return True
        db.act_for(None)
        left = _progress(db)
        if self._wanted[0] is not None and left.done < left.total:
            return False
        db.execute("UPDATE main.memories SET embedding = next_embedding, next_embedding = NULL")
        db.execute("UPDATE store SET model = ?, dim = ?, next_model = NULL, next_dim = NULL", self._wanted)
        return True

    def _is_finished(self, db: Connection) -> bool:
        """Say whether another run finished this one's work; ConflictError where it wants another model."""
        *current, next_model, next_dim = db.execute("SELECT model, dim, next_model, next_dim FROM store").fetchone()
        if (next_model, next_dim) == self._wanted:
            return False
        if next_model is None and tuple(current) == self._wanted:
            return True
        raise ConflictError(
            f"another re-embedding has begun, to {next_model!r}; this one, to {self._wanted[0]!r}, "
            "stopped; run the one you want"
        )


def _progress(db: Connection) -> ReindexProgress:
    db.act_for(None)
    total, done = db.execute("SELECT count(*), count(next_embedding) FROM memories").fetchone()
    return ReindexProgress(done, total)


def _next_batch(db: Connection) -> Batch:
    db.act_for(None)
    return db.execute("SELECT number, content FROM memories WHERE next_embedding IS NULL LIMIT ?", (BATCH,)).fetchall()
