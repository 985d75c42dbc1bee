"""A cancelled call of the sqlite provider really stops: its statement, its wait for a lock, its transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Connection
from sqlite_tools import rows
from waiting import until

from openproto import ProviderUnavailableError

INSERT = "INSERT INTO main.keys VALUES ('ada', 'k', 'm1', x'00')"
FOR_EVER = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1e12) SELECT count(*) FROM n"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A database with one reader, so that one that stays busy would be missed."""
    database = Database(tmp_path / "memory.db", readers=1, lock_timeout=60, synchronous="normal")
    await database.open()
    yield database
    async with asyncio.timeout(20):
        with contextlib.suppress(ProviderUnavailableError):  # the test has closed it
            await database.close()


class Slow:
    """A function over a connection that runs a statement without end, and sets an event when it began."""

    def __init__(self, first: str | None = None) -> None:
        self.first = first
        self.began = threading.Event()
        self.ended = threading.Event()

    def __call__(self, db: Connection) -> Any:
        try:
            if self.first:
                db.execute(self.first)
            self.began.set()
            return db.execute(FOR_EVER).fetchone()
        finally:
            self.ended.set()


@contextlib.contextmanager
def locked(database: Database) -> Iterator[None]:
    """Hold the write lock in another connection."""
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def one(db: Connection) -> Any:
    return db.execute("SELECT 1").fetchone()


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=20)  # the statement and the lock last longer
    assert task.cancelled()


@pytest.mark.promise(85)
async def test_a_cancelled_query_is_interrupted_and_its_connection_serves_the_next(database: Database) -> None:
    slow, waiting = Slow(), Slow()
    reading = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    behind = asyncio.create_task(database.read(waiting))
    await asyncio.sleep(0.05)
    await cancel(behind)
    await cancel(reading)
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
    async with asyncio.timeout(10):
        assert await database.read(lambda db: db.execute(count).fetchone()) == (300_000,)
    assert slow.ended.is_set()
    assert not waiting.began.is_set()


@pytest.mark.parametrize("waits", [True, False], ids=["waits for a lock", "runs"])
async def test_closing_interrupts_what_runs_or_waits_and_raises_in_its_caller(database: Database, waits: bool) -> None:
    slow = Slow()
    with locked(database) if waits else contextlib.nullcontext():
        running = asyncio.create_task(database.write(one) if waits else database.read(slow))
        await (asyncio.sleep(0.1) if waits else until(slow.began.is_set))
        async with asyncio.timeout(10):
            await database.close()
        with pytest.raises(ProviderUnavailableError, match="closed while this call was running"):
            await running


async def test_an_error_in_the_middle_of_a_write_rolls_all_of_it_back(database: Database) -> None:
    def half(db: Connection) -> None:
        db.execute(INSERT)
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await database.write(half)
    assert rows(database.path, "SELECT * FROM keys") == []
    await database.write(one)


async def test_a_read_sees_one_unchanging_state_and_writes_nothing(database: Database) -> None:
    first, second = threading.Event(), threading.Event()

    def look_twice(db: Connection) -> Any:
        counts = [db.execute("SELECT count(*) FROM main.keys").fetchone()[0]]
        first.set()
        assert second.wait(10)
        return [*counts, db.execute("SELECT count(*) FROM main.keys").fetchone()[0]]

    reading = asyncio.create_task(database.read(look_twice))
    await until(first.is_set)
    await database.write(lambda db: db.execute(INSERT))
    second.set()
    assert await reading == [0, 0]
    await database.read(lambda db: db.execute("DELETE FROM main.keys"))
    assert len(rows(database.path, "SELECT * FROM keys")) == 1
