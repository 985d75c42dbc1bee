"""A real PostgreSQL 18 with pgvector for all tests, and a fresh schema of it for each."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from postgres_tools import CLIENTS, MakeClient, Server, execute, tasks, until, value

from openproto import AsyncMemory


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that most tests share; its database `postgres` has pgvector."""
    running = Server()
    try:
        running.start()
        yield running
    finally:
        running.remove()


@pytest.fixture
def dsn(server: Server) -> str:
    """The database that most tests share, as its owner."""
    return server.dsn()


@pytest.fixture
async def nothing_left(dsn: str) -> AsyncIterator[None]:
    """After the test no task and no connection of a client may be left; those of PgBouncer last longer."""
    before = tasks()
    yield

    async def clean() -> bool:
        return await value(dsn, f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS}") == 0 and tasks() <= before

    await until(clean, "the end of every task and connection of the test", 5)


@pytest.fixture
async def schema(dsn: str, nothing_left: None) -> AsyncIterator[str]:
    """The name of a schema that does not exist yet; whatever it holds is dropped afterwards."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    yield name
    await execute(dsn, f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def database(server: Server, dsn: str, nothing_left: None) -> AsyncIterator[str]:
    """The name of an empty database, without pgvector in it."""
    name = f"d_{uuid.uuid4().hex[:12]}"
    await execute(dsn, f"CREATE DATABASE {name}")
    yield name
    await execute(dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def options(dsn: str, schema: str) -> dict[str, Any]:
    """What a client of the schema is made with; by text alone unless the test says otherwise."""
    return {"url": dsn, "schema": schema, "embedder": "none"}


@pytest.fixture
def make(options: dict[str, Any]) -> MakeClient:
    """Make an unopened client of the schema, with other options where given."""
    return lambda **overrides: AsyncMemory("postgres", **{**options, **overrides})


@pytest.fixture
async def memory(make: MakeClient) -> AsyncIterator[AsyncMemory]:
    """An open client of the schema."""
    async with make() as client:
        yield client


@pytest.fixture
async def owner(server: Server, dsn: str, schema: str) -> AsyncIterator[str]:
    """The database as an ordinary role that owns the schema, for which row-level security holds."""
    role = f"r_{schema}"
    await execute(dsn, f"CREATE ROLE {role} LOGIN", f"GRANT CREATE ON DATABASE postgres TO {role}")
    yield server.dsn(user=role)
    await execute(dsn, f"DROP OWNED BY {role}", f"DROP ROLE {role}")
