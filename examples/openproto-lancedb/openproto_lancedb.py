"""LanceDB as a provider of openproto: one table of texts with metadata, over its native async API."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar

from openproto.emulation import EmulatedProvider, Ranked, Stored, Traits, no_such_memory, user_token
from openproto.errors import ProviderError
from openproto.ids import new_id
from openproto.provider import KeyedInput, Outcomes
from openproto.requests import MemoryInput, SearchQuery

COLUMNS = ("id", "user", "key", "name", "content", "envelope")
TIDY_EVERY = 50
"""Each write makes a fragment and a version, and reading slows down with their number."""


class LanceDB(EmulatedProvider[Any]):
    """Memories in a LanceDB folder; words are found by its full-text index, and by openproto where that has none."""

    name = "lancedb"
    cancellation = "native"
    sdk, tested_with = "lancedb", "0.40.0"
    traits = Traits(keyword_search=True, vector_search=False, most_created=1000, mixes_users=True)
    _process: ClassVar[int] = 0
    """Where LanceDB's threads run, which no fork survives."""

    def __init__(self, path: str = "lancedb") -> None:
        super().__init__()
        self._path = os.path.abspath(path)

    def store_name(self) -> str:
        return f"lancedb {self._path}"

    async def connect(self) -> Any:
        if LanceDB._process not in (0, os.getpid()):
            raise self.unsupported("use in a forked child")
        LanceDB._process = os.getpid()
        lancedb = sys.modules.get("lancedb") or await asyncio.to_thread(importlib.import_module, "lancedb")
        schema = sys.modules["pyarrow"].schema([(column, "string") for column in COLUMNS])
        async with self._locked_by([("table",)]):
            with speaking():
                # What others wrote is seen at once, and no cached index keeps its file open after closing.
                fresh = {"read_consistency_interval": timedelta(0), "session": lancedb.Session(0, 0)}
                database = await lancedb.connect_async(self._path, **fresh)
                table = await database.create_table("memories", schema=schema, exist_ok=True)
                if not await table.list_indices():
                    await table.create_index("content", config=lancedb.index.FTS(stem=True))
        return table

    async def disconnect(self, backend: Any) -> None:
        backend.close()

    async def create(self, item: MemoryInput, key: str) -> Stored:
        stored = Stored.new(item, key, id=new_id(item.user_id))
        await self._write(self.backend.add, [row_of(stored)])
        return stored

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        made = [Stored.new(item, key, id=new_id(item.user_id)) for item, key in items]
        await self._write(self.backend.add, [row_of(stored) for stored in made])
        return [stored.record for stored in made]

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        return await self._one("id = '{}'".format(id.replace("'", "''")))

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        return await self._one(f"user = '{user_token(user_id)}' AND key = '{user_token(key)}'")

    async def find_named(self, user_id: str, key: str) -> Stored | None:
        return await self._one(f"user = '{user_token(user_id)}' AND name = '{user_token(key)}'")

    async def replace(self, old: Stored, new: Stored) -> Stored:
        if not (await self._write(self.backend.update, row_of(new), where=f"id = '{new.record.id}'")).rows_updated:
            raise no_such_memory()
        return new

    async def remove(self, stored: Stored) -> bool:
        return bool((await self._write(self.backend.delete, f"id = '{stored.record.id}'")).num_deleted_rows)

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        mine = self.backend.query().where(f"user = '{user_token(user_id)}'")
        with speaking():
            async for batch in await mine.to_batches(max_batch_length=100):
                for row in batch.to_pylist():
                    yield Stored.from_text(row["envelope"], row["content"])

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        mine = self.backend.query().where(f"user = '{user_token(query.user_id)}'")
        words = sys.modules["lancedb"].query.MatchQuery(query.query, "content")  # a plain text would be syntax
        with speaking():
            rows = await mine.nearest_to_text(words).limit(count).to_list()
        hits = [(Stored.from_text(r["envelope"], r["content"]), r["_score"] / (1 + r["_score"])) for r in rows]
        return Ranked(hits, complete=False, exhausted=len(rows) < count)

    async def _one(self, where: str) -> Stored | None:
        with speaking():
            rows = await self.backend.query().where(where).limit(1).to_list()
        return Stored.from_text(rows[0]["envelope"], rows[0]["content"]) if rows else None

    async def _write(self, call: Callable[..., Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Write while nobody else of this process does: two writers at once cost each other their commits."""
        async with self._locked_by([("table",)]):
            with speaking():
                done = await call(*args, **options)
                if done.version % TIDY_EVERY == 0:
                    await self.backend.optimize(cleanup_older_than=timedelta(minutes=1))
                return done


def row_of(stored: Stored) -> dict[str, Any]:
    record, name = stored.record, stored.record.key and user_token(stored.record.key)
    tokens = {"user": user_token(record.user_id), "key": user_token(stored.idempotency_key), "name": name}
    return {"id": record.id, **tokens, "content": record.content, "envelope": stored.to_text()}


@contextmanager
def speaking() -> Iterator[None]:
    """Raise a typed error for what LanceDB raises, whose own words may hold memories."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise ProviderError("LanceDB could not do this; look at the folder of path=, and at the cause") from error
