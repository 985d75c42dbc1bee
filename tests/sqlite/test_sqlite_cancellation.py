"""A cancelled call of the sqlite provider really stops: its statement, its wait for a lock, its transaction."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite.database import Connection, Database
from sqlite_tools import check_consistent, memory, rows
from waiting import until

from openproto import OpenProtoError, ProviderUnavailableError

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
    """A function over a connection that runs a statement without end, and tells when it began."""

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


def one(db: Connection) -> Any:
    return db.execute("SELECT 1").fetchone()


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=20)  # the statement and the lock last longer
    assert task.cancelled()


@pytest.mark.promise(85)
async def test_a_cancelled_query_is_interrupted_and_its_connection_is_free(database: Database) -> None:
    slow = Slow()
    reading = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    await cancel(reading)
    async with asyncio.timeout(10):
        assert await database.read(one) == (1,)
    assert slow.ended.is_set()


async def test_a_cancelled_write_is_interrupted_and_rolled_back(database: Database) -> None:
    slow = Slow("INSERT INTO keys VALUES ('ada', 'k', 'm1', x'00')")
    writing = asyncio.create_task(database.write(slow))
    await until(slow.began.is_set)
    await cancel(writing)
    async with asyncio.timeout(10):
        assert await database.write(lambda db: db.execute("SELECT count(*) FROM keys").fetchone()) == (0,)


async def test_a_query_that_waits_for_a_connection_and_is_cancelled_never_runs(database: Database) -> None:
    slow, waiting = Slow(), Slow()
    first = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    second = asyncio.create_task(database.read(waiting))
    await asyncio.sleep(0.05)
    await cancel(second)
    await cancel(first)
    await database.read(one)
    assert not waiting.began.is_set()


async def test_cancelling_one_query_leaves_the_next_on_its_connection_alone(database: Database) -> None:
    slow = Slow()
    reading = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    await cancel(reading)
    count = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
    assert await database.read(lambda db: db.execute(count).fetchone()) == (300_000,)


async def test_a_write_that_is_cancelled_while_it_waits_for_a_lock_never_happens(database: Database) -> None:
    ran = threading.Event()

    def insert(db: Connection) -> None:
        ran.set()
        db.execute("INSERT INTO keys VALUES ('ada', 'k', 'm1', x'00')")

    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(database.write(insert))
        await asyncio.sleep(0.1)
        await cancel(writing)
        other.execute("ROLLBACK")
    assert await database.write(one) == (1,)
    assert not ran.is_set()
    assert rows(database.path, "SELECT * FROM keys") == []


async def test_a_write_that_is_cancelled_while_it_waits_for_a_lock_frees_the_writer_at_once(database: Database) -> None:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(database.write(one))
        await asyncio.sleep(0.1)
        await cancel(writing)
        async with asyncio.timeout(10):  # the lock is held still, and would be waited for for a minute
            await database.close()


async def test_closing_interrupts_what_runs_and_tells_its_caller(database: Database) -> None:
    slow = Slow()
    reading = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    async with asyncio.timeout(10):
        await database.close()
    with pytest.raises(ProviderUnavailableError, match="closed while this call was running"):
        await reading


async def test_closing_ends_a_write_that_waits_for_a_lock(database: Database) -> None:
    with contextlib.closing(sqlite3.connect(database.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(database.write(one))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(10):
            await database.close()
        with pytest.raises(OpenProtoError):
            await writing


async def test_an_error_in_the_middle_of_a_write_rolls_all_of_it_back(database: Database) -> None:
    def half(db: Connection) -> None:
        db.execute("INSERT INTO keys VALUES ('ada', 'k', 'm1', x'00')")
        raise KeyError("bug")

    with pytest.raises(KeyError):
        await database.write(half)
    assert rows(database.path, "SELECT * FROM keys") == []
    await database.write(one)


async def test_a_read_sees_one_unchanging_state(database: Database) -> None:
    first, second = threading.Event(), threading.Event()

    def look_twice(db: Connection) -> Any:
        counts = [db.execute("SELECT count(*) FROM keys").fetchone()[0]]
        first.set()
        assert second.wait(10)
        return [*counts, db.execute("SELECT count(*) FROM keys").fetchone()[0]]

    reading = asyncio.create_task(database.read(look_twice))
    await until(first.is_set)
    await database.write(lambda db: db.execute("INSERT INTO keys VALUES ('ada', 'k', 'm1', x'00')"))
    second.set()
    assert await reading == [0, 0]


async def test_a_read_can_write_nothing_for_good(database: Database) -> None:
    await database.write(lambda db: None)
    await database.read(lambda db: db.execute("INSERT INTO keys VALUES ('ada', 'k', 'm1', x'00')"))
    assert rows(database.path, "SELECT * FROM keys") == []


async def test_adds_that_are_cancelled_at_any_moment_are_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    async with memory(path) as client:
        old = await client.add("old", user_id="ada")
        for n in range(60):
            adding = asyncio.create_task(client.add(f"new {n}", user_id="ada", supersedes=[old.id]))
            await asyncio.sleep(n * 0.00005)
            adding.cancel()
            await asyncio.wait([adding])
        last = await client.add("last", user_id="ada")
        assert last.content == "last"
    check_consistent(path)
    news = rows(path, "SELECT count(*) FROM memories WHERE content LIKE 'new %'")
    superseded = rows(path, "SELECT superseded_by IS NOT NULL FROM memories WHERE id = ?", old.id)
    assert superseded == [(int(news[0][0] > 0),)]


async def test_the_event_loop_is_never_held_by_a_lock_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    async with memory(path, lock_timeout=20) as client:
        await client.add("before", user_id="ada")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            adding = asyncio.create_task(client.add("meanwhile", user_id="ada"))
            beats = 0
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                await asyncio.sleep(0.005)
                beats += 1
            other.execute("ROLLBACK")
        await adding
    assert beats > 10
