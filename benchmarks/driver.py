"""What a call costs the loop's thread next to the bare driver doing the same: CPU of that thread alone, in turns."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.vectors import pack_words

from benchmarks.corpus import COLUMNS, Corpus, ReadyEmbedder, pack
from benchmarks.harness import Bench, Figure, Seconds, Step, at_most, uncollected
from benchmarks.server import new_schema, raw_connection
from openproto import AsyncMemory
from openproto.embedding.vectors import unit_vectors
from openproto.ids import new_id
from openproto.stores.words import words

MOST_GET, MOST_ADD = 2.0, 2.0
CALLS = 20
"""In a row between two looks at the clock of the thread."""
USER = "ann"


async def run(bench: Bench) -> list[Figure]:
    """Measure `get` on both stores and `add` on postgres."""
    figures: list[Figure] = []
    async with _sqlite(bench) as (ours, bare):
        figures.append(await _measured(bench, "get on sqlite, loop thread / sqlite3 in a thread", ours, bare, MOST_GET))
    async with _postgres(bench) as (get, bare_get, add, bare_add):
        figures.append(await _measured(bench, "get on postgres, loop thread / asyncpg", get, bare_get, MOST_GET))
        figures.append(await _measured(bench, "add on postgres, loop thread / asyncpg", add, bare_add, MOST_ADD))
    return figures


async def _measured(bench: Bench, title: str, ours: Step, bare: Step, limit: float) -> Figure:
    took: dict[str, Seconds] = {"ours": [], "bare": []}
    rounds = bench.size(60, 20)
    with uncollected():
        for turn in range(rounds + 3):
            for name, step in (("ours", ours), ("bare", bare)):
                start = time.thread_time()
                for number in range(CALLS):
                    await step(turn * CALLS + number)
                if turn >= 3:  # the first warm up
                    took[name].append((time.thread_time() - start) / CALLS)
    microseconds = {f"{name}_us": round(median(found) * 1e6, 1) for name, found in took.items()}
    return at_most(title, median(took["ours"]) / median(took["bare"]), limit, "x", **microseconds)


@asynccontextmanager
async def _sqlite(bench: Bench) -> AsyncIterator[tuple[Step, Step]]:
    with TemporaryDirectory(dir=bench.folder) as folder, ThreadPoolExecutor(1) as pool:
        file = Path(folder) / "memory.db"
        async with AsyncMemory("sqlite", path=file, embedder=ReadyEmbedder(), audit_reads=False) as memory:
            record = await memory.add("Ann prefers green tea", user_id=USER)
            loop = asyncio.get_running_loop()
            connection = await loop.run_in_executor(pool, lambda: sqlite3.connect(file))

            def read() -> object:
                return connection.execute("SELECT * FROM memories WHERE id = ?", (record.id,)).fetchall()

            async def ours(turn: int) -> None:
                await memory.get(record.id, user_id=USER)

            async def bare(turn: int) -> None:
                await loop.run_in_executor(pool, read)

            yield ours, bare
            await loop.run_in_executor(pool, connection.close)


@asynccontextmanager
async def _postgres(bench: Bench) -> AsyncIterator[tuple[Step, Step, Step, Step]]:
    embedder, texts = ReadyEmbedder(), Corpus(3).texts(200)
    async with (
        new_schema(bench.url, "driver") as schema,
        AsyncMemory(Postgres(bench.url, schema=schema, embedder=embedder, audit_reads=False)) as memory,
        raw_connection(bench.url) as raw,
    ):
        record = await memory.add("Ann prefers green tea", user_id=USER)
        row = f"SELECT * FROM {schema}.memories WHERE user_id = $1 AND id = $2"
        places = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 1))
        insert = f"INSERT INTO {schema}.memories ({', '.join(COLUMNS)}) VALUES ({places})"
        vectors = unit_vectors([embedder.vector(text) for text in texts], count=200, model="m", dim=embedder.dim)
        ready = [(text, *pack_words(words(text)), vector) for text, vector in zip(texts, vectors, strict=True)]

        async def get(turn: int) -> None:
            await memory.get(record.id, user_id=USER)

        async def bare_get(turn: int) -> None:
            await raw.fetchrow(row, USER, record.id)

        async def add(turn: int) -> None:
            await memory.add(texts[turn % 200], user_id=USER)

        async def bare_add(turn: int) -> None:
            text, first, others, vector = ready[turn % 200]
            assert not isinstance(vector, Exception)
            await raw.execute(insert, new_id(USER), USER, text, [], [], first, others, pack(vector))

        yield get, bare_get, add, bare_add
