"""The two stores behind one interface, each test on both: clients of them, SQL next to the client, re-embedding."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import asyncpg
import lasting
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.sqlite import Sqlite
from store_suites import locked as sqlite_locked

from openproto import AsyncMemory
from openproto.provider import ReindexProgress


class SqliteStore:
    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    def provider(self, embedder: Any, **options: Any) -> Any:
        return Sqlite(self.path, embedder=embedder, synchronous="normal", **options)

    def client(self, embedder: Any = "none", **options: Any) -> AsyncMemory:
        return AsyncMemory(self.provider(embedder, **options), retries=0)

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=10)) as db, db:
            return db.execute(statement).fetchall()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Let every write of a client wait until the block is left."""
        with sqlite_locked(self.path):
            yield

    async def reindex(self, embedder: Any, report: Any = None) -> list[ReindexProgress]:
        reports: list[ReindexProgress] = []
        provider = self.provider(embedder)
        try:
            await provider.reindex(report or reports.append)
        finally:
            await provider.close()
        return reports


class PostgresStore(SqliteStore):
    name = "postgres"

    def __init__(self, url: str) -> None:
        self.url, self.schema = url, f"t_{uuid.uuid4().hex[:12]}"

    def provider(self, embedder: Any, **options: Any) -> Any:
        return Postgres(self.url, schema=self.schema, embedder=embedder, **options)

    async def rows(self, statement: str) -> list[tuple[Any, ...]]:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"SET search_path = {self.schema}, public; SET openproto.users = '*'")
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    @asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(f"BEGIN; LOCK TABLE {self.schema}.memories IN SHARE ROW EXCLUSIVE MODE")
            yield
        finally:
            await connection.close()


@asynccontextmanager
async def new_store(name: str, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A store that does not exist yet; nothing of it stays, and no task of its clients."""
    before = asyncio.all_tasks()
    if name == "sqlite":
        yield SqliteStore(tmp_path / "memory.db")
    else:
        made = PostgresStore(lasting.postgres_url("stores"))
        yield made
        await made.rows(f"DROP SCHEMA IF EXISTS {made.schema} CASCADE")
    assert asyncio.all_tasks() - {asyncio.current_task()} <= before


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with new_store(request.param, tmp_path) as made:
        yield made


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    async with new_store("sqlite", tmp_path) as one, new_store("postgres", tmp_path) as two:
        yield [one, two]


@pytest.fixture
async def memory(store: SqliteStore) -> AsyncIterator[AsyncMemory]:
    async with store.client() as client:
        yield client
