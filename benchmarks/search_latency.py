"""`search` on postgres next to the same statement on a bare asyncpg connection."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.row_security import Acting

from benchmarks.corpus import Corpus, Load, ReadyEmbedder, load, users
from benchmarks.harness import Bench, Figure, at_most, for_information, median_ratio, spread, take_turns
from benchmarks.server import new_schema, raw_connection
from openproto import AsyncMemory

MOST = 1.25
MANY, FEW = 1_000, 100
QUERIES = 50


class Recording(Postgres):
    """The provider, keeping what it sends."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent: list[tuple[str, Sequence[Any]]] = []

    async def _fetch(self, acting: Acting, template: str, *args: Any) -> Sequence[Any]:
        sql, *values = self._queries.acting(acting, template, *args)
        self.sent.append((sql, values))
        return await super()._fetch(acting, template, *args)


async def run(bench: Bench) -> list[Figure]:
    """Measure with a thousand memories a user, and for information with a hundred."""
    async with (
        new_schema(bench.url, "search") as schema,
        AsyncMemory("postgres", url=bench.url, schema=schema, embedder=ReadyEmbedder()) as memory,
        raw_connection(bench.url) as raw,
    ):
        await load(raw, Load(schema, users(20, "many"), MANY), bench.watch, seed=1)
        await load(raw, Load(schema, users(20, "few"), FEW), bench.watch, seed=2)
        judged = await _compare(bench, memory, raw, schema, users(20, "many"))
        small = await _compare(bench, memory, raw, schema, users(20, "few"))
    name = "search on postgres, p50 / the same statement through asyncpg"
    return [
        at_most(name, judged.pop("ratio"), MOST, "x", memories_per_user=MANY, **judged),
        for_information(f"{name}, {FEW} memories a user", small.pop("ratio"), "x", memories_per_user=FEW, **small),
    ]


async def _compare(bench: Bench, memory: AsyncMemory, raw: Any, schema: str, people: list[str]) -> dict[str, Any]:
    asked = list(zip(Corpus(3).queries(QUERIES), people * QUERIES, strict=False))
    sent = await _statements(bench.url, schema, asked)
    (sql,) = {statement for statement, _ in sent}
    statement = await raw.prepare(sql)

    async def through_openproto(turn: int) -> None:
        query, user = asked[turn % QUERIES]
        found = await memory.search(query, user)
        assert len(found) == 10, "a search found less than there is"

    async def through_asyncpg(turn: int) -> None:
        found = await statement.fetch(*sent[turn % QUERIES][1])
        assert len(found) == 10, "the captured statement found less than there is"

    took = await take_turns(
        {"openproto": through_openproto, "asyncpg": through_asyncpg}, bench.size(500, 300), warm=2 * QUERIES
    )
    ours, theirs = took["openproto"], took["asyncpg"]
    return {
        "ratio": median(ours) / median(theirs),
        "ratio_median_of_pairs": round(median_ratio(ours, theirs), 3),
        "openproto_ms": spread(ours, 1e3),
        "asyncpg_ms": spread(theirs, 1e3),
    }


async def statement_of_a_search(url: str, schema: str, query: str, user: str) -> tuple[str, Sequence[Any]]:
    """Return the statement and the arguments that a search becomes."""
    (sent,) = await _statements(url, schema, [(query, user)])
    return sent


async def _statements(url: str, schema: str, asked: list[tuple[str, str]]) -> list[tuple[str, Sequence[Any]]]:
    """Return the statement and the arguments that each search becomes."""
    provider = Recording(url, schema=schema, embedder=ReadyEmbedder(), audit_reads=False)
    async with AsyncMemory(provider) as memory:
        provider.sent.clear()
        for query, user in asked:
            await memory.search(query, user)
        # The first also asks who has an index of their own.
        return [(sql, values) for sql, values in provider.sent if "score" in sql]
