"""Giving every memory of a file the vectors of another embedder while the file is in use.

New vectors gather in a column of their own, and memories that lack one are found by that alone: so a run that was
stopped goes on where it was, and content that changes meanwhile simply comes round again. Only the last step, one
transaction, makes the new model the file's model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from openproto.embedding import Vector
from openproto.indexing import Indexer
from openproto.provider import ReindexProgress
from openproto_adapters.sqlite.database import Connection, Database
from openproto_adapters.sqlite.records import pack_embedding

Batch: TypeAlias = list[tuple[int, str]]

BATCH = 256


async def reindex(database: Database, indexer: Indexer, report: Callable[[ReindexProgress], None]) -> None:
    """Re-embed every memory with `indexer`'s embedder, reporting after each batch."""
    model, dim = indexer.model, indexer.dim

    def begin(db: Connection) -> None:
        (current,) = db.execute("SELECT next_model FROM store").fetchone()
        if current != model:  # vectors gathered for a model that is no longer wanted are of no use
            db.execute("UPDATE memories SET next_embedding = NULL")
            db.execute("UPDATE store SET next_model = ?", (model,))

    def progress(db: Connection) -> ReindexProgress:
        total, done = db.execute("SELECT count(*), count(next_embedding) FROM memories").fetchone()
        return ReindexProgress(done, total)

    def finish(db: Connection) -> bool:
        """Switch to the new model if nothing lacks a vector by now."""
        if model is not None and (left := progress(db)).done < left.total:
            return False
        db.execute("UPDATE memories SET embedding = next_embedding, next_embedding = NULL")
        db.execute("UPDATE store SET model = ?, dim = ?, next_model = NULL", (model, dim))
        return True

    await database.write(begin)
    while model is not None:
        batch = await database.read(_next_batch)
        if not batch and await database.write(finish):
            break
        vectors = await indexer.embed_many([content for _, content in batch])
        await database.write(partial(_keep, batch=batch, vectors=vectors))
        report(await database.read(progress))
    else:
        await database.write(finish)


def _next_batch(db: Connection) -> Batch:
    return db.execute("SELECT number, content FROM memories WHERE next_embedding IS NULL LIMIT ?", (BATCH,)).fetchall()


def _keep(db: Connection, batch: Batch, vectors: Sequence[Vector | None]) -> None:
    # The content is compared as well: it may have changed since it was read.
    db.executemany(
        "UPDATE memories SET next_embedding = ? WHERE number = ? AND content = ?",
        (
            (pack_embedding(vector), number, content)
            for (number, content), vector in zip(batch, vectors, strict=True)
            if vector is not None
        ),
    )
