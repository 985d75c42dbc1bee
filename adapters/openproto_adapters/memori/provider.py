"""The memori provider: the protocol's verbs on Memori's tables and engine."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple, ParamSpec, TypeVar
from uuid import uuid4

from platformdirs import user_cache_path, user_data_path

from openproto.blocking.imports import large_import
from openproto.blocking.threads import Threads, start_alone
from openproto.emulation import EmulatedProvider, Ranked, Stored, Traits, connect_in, is_uuid
from openproto.fanout import shielded
from openproto.fields import check_whole
from openproto.models import Cancellation
from openproto.provider import KeyedInput, Outcomes, is_fresh
from openproto.requests import MemoryInput, SearchQuery

if TYPE_CHECKING:
    from sqlalchemy import URL

    from openproto_adapters.memori.native import Engine
    from openproto_adapters.memori.store import Mark, Store

P = ParamSpec("P")
R = TypeVar("R")


class _Backend(NamedTuple):
    """What an open provider works with; writes have separate threads, so that a stuck one delays no read."""

    store: Store
    engine: Engine
    url: URL
    reads: Threads
    writes: Threads


class Memori(EmulatedProvider[_Backend]):
    """Memories in a database of your own, as facts of Memori, found by its engine; nothing goes to its cloud.

    Memori's embedding model is downloaded by its engine when it is first needed, unless it is there.

    Args:
        url: A SQLAlchemy URL of SQLite or PostgreSQL (`postgresql://...`), or the path of a SQLite file; by default
            one in the user's data directory.
        models: The folder of the embedding model, by default the one in FASTEMBED_CACHE_DIR, or one in the user's
            cache directory.
        width: The most reads under way at once, and the most writes on PostgreSQL; SQLite takes one at a time.
    """

    name = "memori"
    cancellation: Cancellation = "detached"
    requires: ClassVar[tuple[str, ...]] = ("memori", "onnxruntime", "psycopg", "sqlalchemy")
    sdk = "memori"
    tested_with = "3.3.6"
    traits = Traits(scans_newest_first=True, most_created=200, mixes_users=True, removes_all=True, lists_users=True)

    def __init__(self, url: str | Path | None = None, *, models: str | Path | None = None, width: int = 4) -> None:
        super().__init__()
        check_whole(width=width)
        self._location = url
        self._models = models
        self._width = width

    async def connect(self) -> _Backend:
        reads = Threads(self._width, "openproto-memori")
        backend = await connect_in(reads, self._make_backend, reads)
        try:
            await backend.writes(backend.store.open)
        except BaseException:
            await self.disconnect(backend)
            raise
        return backend

    async def disconnect(self, backend: _Backend) -> None:
        """Close the connections; a call that is running keeps its own until it ends."""
        backend.reads.close()
        backend.writes.close()
        await shielded(start_alone(backend.store.close, "openproto-memori-close"))

    def store_name(self) -> str:
        return f"memori {self.backend.url.render_as_string()}"

    async def create(self, item: MemoryInput, key: str) -> Stored:
        stored = Stored.new(item, key, id=str(uuid4()))
        if await self._insert([stored]):
            return stored
        # Another process was faster with the same key. Should it have deleted the memory since, the new one counts.
        before = await self.find_key(item.user_id, key)
        return await self.create(item, key) if before is None else self._same_input(before, item)

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        return await self._call(self.backend.store.get, id) if is_uuid(id) else None

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        return await self._call(self.backend.store.get_key, user_id, key)

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Write fact and row anew in one transaction, with another vector if the text has changed."""
        content = new.record.content
        vector = await self._call(self.backend.engine.embed, content) if content != old.record.content else None
        await self._write(self.backend.store.replace, new, vector)
        return new

    async def remove(self, stored: Stored) -> bool:
        return await self._write(self.backend.store.remove, stored.record.id)

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        mark: Mark | None = None
        while True:
            found, mark = await self._call(self.backend.store.page, user_id, mark, until)
            for stored in found:
                yield stored
            if mark is None:
                return

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Let the engine rank all facts that pass the filters, however many there are."""
        return await self._call(_rank, self.backend.store, self.backend.engine, query, count)

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Write the memories in one transaction; one by one where some may be there already."""
        if not all(is_fresh(key) for _, key in items):
            return await self.add_each(items)
        new = [Stored.new(item, key, id=str(uuid4())) for item, key in items]
        return [stored.record for stored in new] if await self._insert(new) else await self.add_each(items)

    async def remove_all(self, user_id: str) -> int:
        return await self._write(self.backend.store.remove_all, user_id)

    async def owners(self) -> Sequence[str]:
        return await self._call(self.backend.store.owners)

    async def check(self) -> None:
        await self._call(self.backend.store.ping)

    async def describe(self) -> dict[str, str]:
        return {"url": self.backend.url.render_as_string(), **await super().describe()}

    async def _insert(self, new: Sequence[Stored]) -> bool:
        engine = self.backend.engine
        vectors = await self._call(lambda: [engine.embed(stored.record.content) for stored in new])
        return await self._write(self.backend.store.insert, new, vectors)

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.backend.reads(function, *args, **kwargs)

    async def _write(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self.backend.writes(function, *args, **kwargs)

    @large_import()
    def _make_backend(self, reads: Threads) -> _Backend:
        from openproto_adapters.memori.database_url import database_url
        from openproto_adapters.memori.native import engine
        from openproto_adapters.memori.store import Store

        url = database_url(self._location or user_data_path("openproto") / "memori.db")
        writers = 1 if url.get_backend_name() == "sqlite" else self._width
        writes = Threads(writers, "openproto-memori-write")
        # Left alone, the engine takes a folder in the working directory, and whatever model lies there.
        models = self._models or os.environ.get("FASTEMBED_CACHE_DIR") or user_cache_path("openproto") / "memori"
        return _Backend(Store(url, self._width + writers), engine(Path(models).absolute()), url, reads, writes)


def _rank(store: Store, engine: Engine, query: SearchQuery, count: int) -> Ranked:
    ranked: list[tuple[int, float]] = []
    given, all_ranked = 0, True
    for facts in store.vectors(query, query.as_of or datetime.now(UTC)):
        # Another program's fact may lack a vector, or have one of another model: Memori's own search fails at it.
        usable = [(number, vector) for number, vector in facts if len(vector) == engine.vector_size]
        all_ranked = all_ranked and len(usable) == len(facts)
        given += len(usable)
        if usable:
            ranked += engine.rank(query.query, usable, store.texts, count)
    ranked.sort(key=lambda hit: hit[1], reverse=True)
    del ranked[count:]
    found = store.memories(query.user_id, [number for number, _ in ranked])
    hits = [(found[number], score) for number, score in ranked if number in found]
    return Ranked(hits, complete=all_ranked and given <= count)
