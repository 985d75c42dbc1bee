"""`add` on postgres next to plain INSERTs of the same columns into the same table, eight at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median
from typing import Any

from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.vectors import pack_words

from benchmarks.corpus import COLUMNS, Corpus, Load, ReadyEmbedder, load, pack, users
from benchmarks.harness import Bench, Figure, at_least, median_ratio, uncollected
from benchmarks.server import new_schema, raw_connection, raw_pool
from openproto import AsyncMemory
from openproto.embedding.vectors import unit_vectors
from openproto.ids import new_id
from openproto.stores.words import words

LEAST = 0.6
CONCURRENCY = 8
USERS = users(50)

Insert = Callable[[int], Awaitable[object]]


async def run(bench: Bench) -> list[Figure]:
    """Let both sides insert in turns and compare their rates."""
    count, rounds = bench.size(1_000, 300), 7
    async with (
        new_schema(bench.url, "insert") as schema,
        AsyncMemory(_provider(bench, schema)) as memory,
        raw_connection(bench.url) as raw,
        raw_pool(bench.url, CONCURRENCY) as pool,
    ):
        await load(raw, Load(schema, USERS, 200), bench.watch)
        commit = await raw.fetchval("SHOW synchronous_commit")
        ours, theirs = await _rates(memory, pool, schema, count, rounds)
    return [
        at_least(
            f"add on postgres, rate / asyncpg's INSERT, {CONCURRENCY} at once",
            median_ratio(ours, theirs),
            LEAST,
            "x",
            openproto_per_second=round(median(ours)),
            asyncpg_per_second=round(median(theirs)),
            rounds=rounds,
            inserts_per_round=count,
            synchronous_commit=commit,
            lowest_and_highest_ratio=[
                round(pick(a / b for a, b in zip(ours, theirs, strict=True)), 3) for pick in (min, max)
            ],
        )
    ]


def _provider(bench: Bench, schema: str) -> Postgres:
    return Postgres(bench.url, schema=schema, embedder=ReadyEmbedder(), pool_min=CONCURRENCY, pool_max=CONCURRENCY)


async def _rates(
    memory: AsyncMemory, pool: Any, schema: str, count: int, rounds: int
) -> tuple[list[float], list[float]]:
    corpus = Corpus(7)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(rounds + 1):
        sides = {
            "ours": _adding(memory, corpus.texts(count)),
            "theirs": _inserting(pool, schema, corpus.texts(count)),
        }
        for name in sorted(sides, reverse=turn % 2 == 1):
            with uncollected():
                rate = count / await _time(sides[name], count)
            if turn:  # the first round warms up
                rates[name].append(rate)
    return rates["ours"], rates["theirs"]


def _adding(memory: AsyncMemory, texts: Sequence[str]) -> Insert:
    async def insert(number: int) -> None:
        await memory.add(texts[number], user_id=USERS[number % len(USERS)])

    return insert


def _inserting(pool: Any, schema: str, texts: Sequence[str]) -> Insert:
    """Return the same without openproto: vectors and words are ready, and packed when they are sent."""
    places = ", ".join(f"${place}" for place in range(1, len(COLUMNS) + 1))
    statement = f"INSERT INTO {schema}.memories ({', '.join(COLUMNS)}) VALUES ({places})"
    embedder = ReadyEmbedder()
    made = unit_vectors(
        [embedder.vector(text) for text in texts], count=len(texts), model=embedder.model, dim=embedder.dim
    )
    ready = list(zip(texts, [words(text) for text in texts], made, strict=True))

    async def insert(number: int) -> None:
        content, found, vector = ready[number]
        assert not isinstance(vector, Exception)
        user = USERS[number % len(USERS)]
        row: tuple[object, ...] = (new_id(user), user, content, [], [], *pack_words(found), pack(vector))
        async with pool.acquire() as connection:
            await connection.execute(statement, *row)

    return insert


async def _time(insert: Insert, count: int) -> float:
    """Return the seconds that `count` inserts take, eight at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await insert(number)

    start = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return time.perf_counter() - start
