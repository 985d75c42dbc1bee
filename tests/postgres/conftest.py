"""A real PostgreSQL 18 with pgvector for all tests, and a fresh schema of it for each."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from postgres_tools import Database, Server, tasks
from waiting import until

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
async def db(server: Server) -> AsyncIterator[Database]:
    """A schema in the database that most tests share, as its superuser; what a test left in it is dropped.

    After the test no task and no connection of a client may be left; those of PgBouncer last longer.
    """
    made, before = Database(server, f"t_{uuid.uuid4().hex[:12]}"), tasks()
    yield made

    async def clean() -> bool:
        return await made.connections() == 0 and tasks() <= before

    await until(clean, 5)
    await made.execute(f"DROP SCHEMA IF EXISTS {made.schema} CASCADE")


@pytest.fixture
async def empty(db: Database) -> AsyncIterator[Database]:
    """An empty database, without pgvector in it."""
    made = Database(db.server, "openproto", f"d_{db.schema}")
    await db.execute(f"CREATE DATABASE {made.name}")
    yield made
    await db.execute(f"DROP DATABASE {made.name} WITH (FORCE)")


@pytest.fixture
async def memory(db: Database) -> AsyncIterator[AsyncMemory]:
    async with db.client() as client:
        yield client


@pytest.fixture
async def guest(db: Database) -> AsyncIterator[str]:
    """A role that may connect and nothing else."""
    role = f"g_{db.schema}"
    await db.execute(f"CREATE ROLE {role} LOGIN")
    yield role
    await db.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.fixture
async def owner(db: Database) -> AsyncIterator[str]:
    """The database as an ordinary role that owns the schema, for which row-level security holds."""
    role = f"r_{db.schema}"
    await db.execute(f"CREATE ROLE {role} LOGIN", f"GRANT CREATE ON DATABASE postgres TO {role}")
    yield db.server.dsn(user=role)
    await db.execute(f"DROP OWNED BY {role}", f"DROP ROLE {role}")
