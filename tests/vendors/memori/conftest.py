"""A model for Memori's engine, a file for each test, and PostgreSQL for those that want one."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import lasting
import pytest
from openproto_adapters.memori import Memori
from openproto_conformance.emulators.memori import Memori as Emulated

from openproto import AsyncMemory


@pytest.fixture(scope="session")
def models() -> Iterator[Path]:
    with Emulated() as running:
        yield running.models


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "memori.db"


@pytest.fixture
async def memory(database: Path, models: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory(Memori(database, models=models)) as client:
        yield client


@pytest.fixture
def sql(database: Path) -> Any:
    def run(statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(database)) as connection, connection:
            return connection.execute(statement, values).fetchall()

    return run


@pytest.fixture
def memoris_own(sql: Any) -> Any:
    def write(user_id: str, content: str, embedding: bytes = b"") -> str:
        uuid = str(uuid4())
        sql("INSERT OR IGNORE INTO memori_entity (uuid, external_id) VALUES (?, ?)", str(uuid4()), user_id)
        sql(
            "INSERT INTO memori_entity_fact (uuid, entity_id, content, content_embedding, num_times, date_last_time,"
            " uniq) SELECT ?, id, ?, ?, 3, datetime('now'), ? FROM memori_entity WHERE external_id = ?",
            uuid,
            content,
            embedding,
            uuid,
            user_id,
        )
        return uuid

    return write


@pytest.fixture
def server(request: pytest.FixtureRequest) -> str:
    """The URL of a PostgreSQL database that only this module uses, as its owner."""
    return lasting.postgres_url(request.path.stem)
