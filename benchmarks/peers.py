"""Every operation of ours beside LangGraph's stores, one at a time and sixteen at once, on the same files and server.

Run in an environment that has their packages, which `make bench` installs: `python -m benchmarks.peers FOLDER URL`.
What theirs lack they do without: words, validity, an audit log, idempotency. Their default index of vectors leaves
results out, so the postgres store is also measured without it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from benchmarks.corpus import DIMENSIONS, Corpus, ReadyEmbedder
from benchmarks.harness import Bench, Figure, Seconds, Step, at_least, median_ratio, not_run, spread, take_turns
from openproto import AsyncMemory

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
LEAST = 1.0
USER = "ann"
MEMORIES = 1_000
AT_ONCE = 16
BATCH = 500


class Store(Protocol):
    """What both sides can do."""

    async def add(self, text: str) -> str: ...
    async def add_many(self, texts: Sequence[str]) -> object: ...
    async def search(self, query: str) -> Sequence[object]: ...
    async def get(self, id: str) -> object: ...
    async def list(self) -> object: ...
    async def delete(self, id: str) -> None: ...


class Ours:
    """openproto's client."""

    def __init__(self, memory: AsyncMemory) -> None:
        self._memory = memory

    async def add(self, text: str) -> str:
        return (await self._memory.add(text, user_id=USER)).id

    async def add_many(self, texts: Sequence[str]) -> object:
        return await self._memory.add_many([{"content": text, "user_id": USER} for text in texts])

    async def search(self, query: str) -> Sequence[object]:
        return await self._memory.search(query, USER, limit=10)

    async def get(self, id: str) -> object:
        return await self._memory.get(id, user_id=USER)

    async def list(self) -> object:
        return await self._memory.list(USER, limit=50)

    async def delete(self, id: str) -> None:
        await self._memory.delete(id, user_id=USER)


class LangGraph:
    """A store of LangGraph's, the user as the namespace."""

    def __init__(self, store: Any) -> None:
        from langgraph.store.base import PutOp

        self._store = store
        self._put = PutOp

    async def add(self, text: str) -> str:
        key = uuid.uuid4().hex
        await self._store.aput((USER,), key, {"text": text})
        return key

    async def add_many(self, texts: Sequence[str]) -> object:
        return await self._store.abatch([self._put((USER,), uuid.uuid4().hex, {"text": text}) for text in texts])

    async def search(self, query: str) -> Sequence[object]:
        found: Sequence[object] = await self._store.asearch((USER,), query=query, limit=10)
        return found

    async def get(self, id: str) -> object:
        return await self._store.aget((USER,), id)

    async def list(self) -> object:
        return await self._store.asearch((USER,), limit=50)

    async def delete(self, id: str) -> None:
        await self._store.adelete((USER,), id)


async def run(bench: Bench) -> list[Figure]:
    """Measure in the peers' environment and judge each operation."""
    if not PYTHON.exists():
        return [not_run("LangGraph's stores", "`make bench` installs them into .venv-peers")]
    process = await asyncio.create_subprocess_exec(
        PYTHON, "-m", __name__, str(bench.folder), bench.url, str(bench.size(60, 20)),
        cwd=ROOT, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"the process of the peers ended with {process.returncode}")
    return [
        at_least(
            f"{operation}: their time / ours, {pair}",
            median_ratio(took["theirs"], took["ours"]),
            LEAST,
            "x",
            ours_ms=spread(took["ours"], 1e3),
            theirs_ms=spread(took["theirs"], 1e3),
        )
        for pair, operations in json.loads(told).items()
        for operation, took in operations.items()
    ]


async def compare(ours: Store, theirs: Store, rounds: int) -> dict[str, dict[str, Seconds]]:
    """Return the seconds of every operation on both sides, which take turns."""
    texts = iter(Corpus(3).texts(MEMORIES + 2 * AT_ONCE * 4 * rounds + 10 * BATCH * rounds))
    queries = Corpus(5).queries(50)
    sides = {"ours": ours, "theirs": theirs}
    first = [next(texts) for _ in range(MEMORIES)]
    kept: dict[str, list[str]] = {}
    for name, store in sides.items():
        kept[name] = [await store.add(text) for text in first]

    def step(name: str, operation: str, count: int) -> Step:
        store = sides[name]

        def one(turn: int, number: int) -> Any:
            chosen = kept[name][(turn * count + number) % MEMORIES]
            if operation == "add":
                return store.add(next(texts))
            if operation == "add_many":
                return store.add_many([next(texts) for _ in range(BATCH)])
            if operation == "search":
                return store.search(queries[(turn + number) % len(queries)])
            if operation == "list":
                return store.list()
            # A memory that is there is deleted: the deletions come last and need no more than the memories.
            return store.get(chosen) if operation == "get" else store.delete(chosen)

        async def run(turn: int) -> None:
            if count == 1:
                await one(turn, 0)
            else:
                await asyncio.gather(*(one(turn, number) for number in range(count)))

        return run

    took: dict[str, dict[str, Seconds]] = {}
    plan = [("search", 1, rounds), ("search", AT_ONCE, rounds // 4), ("get", 1, 2 * rounds), ("get", AT_ONCE, rounds)]
    plan += [("list", 1, rounds), ("add", 1, rounds), ("add", AT_ONCE, rounds), ("delete", 1, rounds)]
    plan += [("add_many", 1, rounds // 5)]
    for operation, count, turns in plan:
        title = f"{operation} of {BATCH}" if operation == "add_many" else operation
        if operation not in {"list", "delete", "add_many"}:
            title += ", one at a time" if count == 1 else f", {count} at once"
        steps = {name: step(name, operation, count) for name in sides}
        # Our sqlite indexes words after it has answered, which must not fall into their time.
        rest = 0.1 if operation == "add_many" else 0.02 if operation == "add" else 0.0
        took[title] = await take_turns(steps, turns, warm=1 if operation == "delete" else 3, rest=rest)
    return took


@asynccontextmanager
async def _langgraph_sqlite(file: Path, index: dict[str, Any]) -> AsyncIterator[Store]:
    AsyncSqliteStore = importlib.import_module("langgraph.store.sqlite.aio").AsyncSqliteStore

    async with AsyncSqliteStore.from_conn_string(str(file), index=index) as store:
        await store.setup()
        yield LangGraph(store)


@asynccontextmanager
async def _langgraph_postgres(url: str, index: dict[str, Any], *, indexed: bool) -> AsyncIterator[Store]:
    AsyncPostgresStore = importlib.import_module("langgraph.store.postgres.aio").AsyncPostgresStore

    pool: Any = {"min_size": 8, "max_size": 8}
    async with AsyncPostgresStore.from_conn_string(url, pool_config=pool, index=index) as store:
        for table in ("store_vectors", "store", "store_migrations", "vector_migrations"):
            async with store._cursor() as cursor:
                await cursor.execute(f"DROP TABLE IF EXISTS {table}")
        await store.setup()
        if not indexed:  # its own option for that, "flat", is refused by its migration
            async with store._cursor() as cursor:
                await cursor.execute("DROP INDEX store_vectors_embedding_idx")
        yield LangGraph(store)


async def _main(folder: Path, url: str, rounds: int) -> None:
    embedder = ReadyEmbedder()

    async def embed(texts: Sequence[str]) -> list[list[float]]:
        return [embedder.vector(text).tolist() for text in texts]

    index = {"dims": DIMENSIONS, "embed": embed, "fields": ["text"]}
    found: dict[str, dict[str, dict[str, Seconds]]] = {}
    place = folder / f"peers-{uuid.uuid4().hex}"
    place.mkdir()
    async with AsyncExitStack() as stack:
        ours = AsyncMemory("sqlite", path=place / "ours.db", embedder=embedder)
        theirs = _langgraph_sqlite(place / "theirs.db", index)
        found["LangGraph's sqlite"] = await compare(
            Ours(await stack.enter_async_context(ours)), await stack.enter_async_context(theirs), rounds
        )
    for title, indexed in (
        ("LangGraph's Postgres as it comes", True),
        ("LangGraph's Postgres without its index", False),
    ):
        async with AsyncExitStack() as stack:
            schema = f"peers_{uuid.uuid4().hex[:8]}"
            memory = AsyncMemory("postgres", url=url, schema=schema, embedder=embedder, pool_min=8, pool_max=8)
            found[title] = await compare(
                Ours(await stack.enter_async_context(memory)),
                await stack.enter_async_context(_langgraph_postgres(url, index, indexed=indexed)),
                rounds,
            )
    print(json.dumps(found))


def _sqlite_with_extensions() -> None:
    """Let both sides use a SQLite that loads extensions: LangGraph needs it, and some builds of Python lack it."""
    import sqlite3

    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        sys.modules["sqlite3"] = importlib.import_module("pysqlite3")


if __name__ == "__main__":
    _sqlite_with_extensions()
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
