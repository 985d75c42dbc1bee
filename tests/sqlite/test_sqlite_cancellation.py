"""A cancelled call of the sqlite provider really stops: its statement, its wait for a lock, its transaction."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Connection
from sqlite_tools import locked, rows
from waiting import until

from openproto import ProviderUnavailableError

INSERT = "INSERT INTO main.keys VALUES ('ada', 'k', 'm1', x'00')"
COUNT = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT count(*) FROM n"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    """A database with one reader, so that one that stays busy would be missed."""
    database = Database(path, readers=1, lock_timeout=60, synchronous="normal")
    await database.open()
    yield database
    async with asyncio.timeout(20):
        with contextlib.suppress(ProviderUnavailableError):  # the test has closed it
            await database.close()


class Slow:
    """A function over a connection that runs a statement without end, and sets events when it began and ended."""

    def __init__(self) -> None:
        self.began, self.ended = threading.Event(), threading.Event()

    def __call__(self, db: Connection) -> Any:
        try:
            self.began.set()
            return db.execute(COUNT.format("1e12")).fetchone()
        finally:
            self.ended.set()


def one(db: Connection) -> Any:
    return db.execute("SELECT 1").fetchone()


@pytest.mark.promise(85)
async def test_a_cancelled_query_is_interrupted_and_its_connection_serves_the_next(database: Database) -> None:
    slow, waiting = Slow(), Slow()
    reading = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    behind = asyncio.create_task(database.read(waiting))
    await asyncio.sleep(0.05)
    for task in (behind, reading):
        task.cancel()
        await asyncio.wait([task], timeout=20)  # the statement lasts longer
        assert task.cancelled()
    async with asyncio.timeout(10):
        assert await database.read(lambda db: db.execute(COUNT.format(300_000)).fetchone()) == (300_000,)
    assert (slow.ended.is_set(), waiting.began.is_set()) == (True, False)


@pytest.mark.parametrize("waits", [True, False], ids=["waits for a lock", "runs"])
async def test_closing_interrupts_what_runs_or_waits_and_raises_in_its_caller(database: Database, waits: bool) -> None:
    slow = Slow()
    with locked(database.path) if waits else contextlib.nullcontext():
        running = asyncio.create_task(database.write(one) if waits else database.read(slow))
        await (asyncio.sleep(0.1) if waits else until(slow.began.is_set))
        async with asyncio.timeout(10):
            await database.close()
        with pytest.raises(ProviderUnavailableError, match="closed while this call was running"):
            await running


async def test_an_error_rolls_a_write_back_and_a_read_writes_nothing(database: Database) -> None:
    def half(db: Connection) -> None:
        db.execute(INSERT)
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await database.write(half)
    assert rows(database.path, "SELECT * FROM keys") == []
    await database.write(lambda db: db.execute(INSERT))
    await database.read(lambda db: db.execute("DELETE FROM main.keys"))
    assert len(rows(database.path, "SELECT * FROM keys")) == 1
