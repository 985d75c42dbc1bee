"""Vectors of any length: stored in the rows, compared exactly, and indexed only with their user."""

from __future__ import annotations

import asyncio

import pytest
from postgres_tools import MakeClient, sql, stored, value
from toy_embedders import HashEmbedder

from openproto import MemoryRecord


@pytest.mark.parametrize("dim", [3, 256, 512, 513, 1024, 1536, 4000])
async def test_vectors_of_any_common_length_are_stored_and_compared(
    make: MakeClient, dsn: str, schema: str, dim: int
) -> None:
    async with make(embedder=HashEmbedder(dim, text_weight=0.0)) as memory:
        tea = await memory.add("black tea", user_id="ada")
        outcomes = await memory.add_many([{"content": f"other matter {n}", "user_id": "ada"} for n in range(20)])
        assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes)
        await memory.update(stored(outcomes[0]).id, content="something else")
        best = (await memory.search("tea black", "ada"))[0]
        assert best.memory.id == tea.id
        assert best.score == pytest.approx(1.0, abs=2e-3)
    async with make(embedder=HashEmbedder(dim)) as memory:
        assert (await memory.search("tea black", "ada"))[0].memory.id == tea.id


async def test_clients_that_open_a_store_of_long_vectors_at_once_all_work_and_later_ones_rebuild_nothing(
    make: MakeClient, dsn: str, schema: str
) -> None:
    indexes = f"SELECT indexrelid::int FROM pg_index WHERE indrelid = '{schema}.memories'::regclass ORDER BY 1"

    async def work(n: int) -> None:
        async with make(embedder=HashEmbedder(1024)) as memory:
            await memory.add(f"fact {n}", user_id="ada")

    await asyncio.gather(*(work(n) for n in range(6)))
    before = await sql(dsn, indexes)
    await work(7)
    assert await sql(dsn, indexes) == before


async def test_there_is_no_index_over_the_vectors_of_all_users(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder()):
        pass
    methods = (
        "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid JOIN pg_am ON pg_am.oid = relam "
        f"WHERE indrelid = '{schema}.memories'::regclass AND amname <> 'btree'"
    )
    assert await value(dsn, methods) == 0
