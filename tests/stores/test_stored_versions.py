"""Stores as earlier versions wrote them, kept in `stored/`: each opens, is upgraded, and has all that it held.

A release adds a file of its schema: a dump by pg_dump, or a database file, of the same memories.
"""

from __future__ import annotations

import gzip
from datetime import timedelta
from pathlib import Path

import asyncpg
import lasting
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.sqlite import Sqlite

from openproto import AsyncMemory, Provider

TICK = timedelta(microseconds=1)
STORED = sorted(Path(__file__).with_name("stored").glob("*.gz"))


async def unpacked(stored: Path, data: bytes, folder: Path) -> Provider:
    if stored.name.startswith("sqlite"):
        file = folder / "memory.db"
        file.write_bytes(data)
        return Sqlite(file, embedder="none")
    url = lasting.postgres_url(f"stored_{stored.stem.partition('.')[0]}")
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("CREATE EXTENSION IF NOT EXISTS vector; DROP SCHEMA IF EXISTS openproto CASCADE")
        await connection.execute(data.decode())
    finally:
        await connection.close()
    return Postgres(url, embedder="none")


@pytest.mark.parametrize("stored", STORED, ids=lambda stored: stored.name.partition(".")[0])
async def test_a_store_of_an_earlier_version_is_upgraded_and_keeps_what_it_held(stored: Path, tmp_path: Path) -> None:
    data = gzip.decompress(stored.read_bytes())  # noqa: ASYNC240 - three kilobytes
    async with AsyncMemory(await unpacked(stored, data, tmp_path)) as memory:
        assert len(await memory.audit("ada")) >= 5
        found = {record.content: record async for record in memory.iter("ada")}
        assert list(found) == ["has a cat", "lives in Kiel", "lives in Ulm", "likes tea"]
        tea, ulm, kiel = found["likes tea"], found["lives in Ulm"], found["lives in Kiel"]
        assert (tea.scope, tea.tags, tea.source and tea.source.app) == ("drinks/hot", ["t", "u"], "notes")
        assert (tea.confidence, tea.extensions) == (0.5, {"x-app": {"k": [1]}})
        assert (ulm.superseded_by, kiel.supersedes) == (kiel.id, [ulm.id])
        for moment, home in ((kiel.created_at - TICK, ulm), (kiel.created_at, kiel)):
            current = {record.content async for record in memory.iter("ada", as_of=moment)}
            assert current & {ulm.content, kiel.content} == {home.content}
        if "_1" not in stored.name:  # before there were keys
            assert (await memory.get(key="pet", user_id="ada")).content == "has a cat"
        assert [hit.memory.content for hit in await memory.search("tea", "ada")] == ["likes tea"]
        again = await memory.add(
            "likes tea", user_id="ada", scope="drinks/hot", tags=["t", "u"], source={"app": "notes"}, confidence=0.5,
            x_app={"k": [1]}, idempotency_key="once",
        )  # fmt: skip
        assert again == tea
        assert [record.content async for record in memory.iter("bob")] == ["likes milk"]


def test_each_earlier_schema_is_stored() -> None:
    """That of the first sqlite schema, with more in it, is in `tests/sqlite`."""
    names = [file.name.partition(".")[0] for file in STORED]
    assert names == ["postgres_1", "postgres_3", "sqlite_2", "sqlite_3", "sqlite_5"]
