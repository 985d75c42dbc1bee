"""What goes to the file together, where one of it fails or is interrupted; tests/stores has what both stores do."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from openproto_adapters.sqlite import Sqlite, statements
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Call, Connection
from sqlite_tools import check_consistent, memory, rows
from waiting import until

from openproto import AsyncMemory, ProviderUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


def database_of(client: AsyncMemory) -> Database:
    provider = client._session.provider
    assert isinstance(provider, Sqlite)
    return provider._db


async def test_a_call_cancelled_among_others_is_interrupted_and_they_are_written_all_the_same(path: Path) -> None:
    began = Event()
    forever = "INSERT INTO main.keys WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) " + (
        "SELECT 'ada', i, 'm', x'00' FROM n WHERE i < 0"
    )

    def slow(db: Connection) -> None:
        db.execute("INSERT INTO main.keys VALUES ('ada', 'half', 'm', x'00')")
        began.set()
        db.execute(forever)

    async with memory(path, audit_reads=False) as client:
        database = database_of(client)
        await client.add("first", user_id="ada")
        adds = [asyncio.create_task(client.add(f"before {n}", user_id="ada")) for n in range(3)]
        writing = asyncio.create_task(database.write(slow))
        adds += [asyncio.create_task(client.add(f"behind {n}", user_id="ada")) for n in range(3)]
        await until(began.is_set)
        writing.cancel()
        async with asyncio.timeout(5):
            records = await asyncio.gather(*adds)
        assert writing.cancelled()
        assert {record.id async for record in client.iter("ada")} >= {record.id for record in records}
        assert rows(path, "SELECT * FROM keys WHERE idempotency_key = 'half'") == []
    assert check_consistent(path) == 7


async def test_what_is_refused_together_is_tried_one_by_one(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    together = Database._write_together

    def refused(self: Database, calls: Sequence[Call], connection: Connection) -> list[Any]:
        sizes.append(len(calls))
        outcomes = together(self, calls, connection)
        if len(calls) > 1:
            raise sqlite3.OperationalError("too much at once")
        return outcomes

    monkeypatch.setattr(Database, "_write_together", refused)
    async with memory(path, audit_reads=False) as client:
        database = database_of(client)
        found = await asyncio.gather(*(database.write(lambda db, n=n: n) for n in range(3)))  # type: ignore[misc]
    assert found == [0, 1, 2]
    assert sizes == [3, 1, 1, 1]


async def test_a_lock_that_another_process_holds_is_an_error_of_each(path: Path) -> None:
    async with memory(path, audit_reads=False, lock_timeout=0.1) as client:
        await client.add("first", user_id="ada")
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = asyncio.get_running_loop().time()
        calls = [client.add(f"note {n}", user_id="ada") for n in range(20)]
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.get_running_loop().time() - started < 20 * 0.1
        other.close()
        assert {type(error) for error in errors} == {ProviderUnavailableError}
        assert len({error.request_id for error in errors if isinstance(error, ProviderUnavailableError)}) == 20
        await client.add("later", user_id="ada")
    assert check_consistent(path) == 2


async def test_gets_that_are_all_cancelled_while_they_wait_for_a_lock_end_and_the_next_one_works(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    async with memory(path, audit_reads=False) as client:
        record = await client.add("note", user_id="ada")
        lane = database_of(client)._readers
        with monkeypatch.context() as patch:
            patch.setattr(statements, "get_each", waits)
            running = [asyncio.create_task(client.get(record.id)) for _ in range(5)]
            await until(lambda: len(lane._running) == 6)
            for call in running:
                call.cancel()
            await asyncio.wait(running, timeout=5)
            await until(lambda: not lane._running)
        async with asyncio.timeout(5):
            assert await client.get(record.id) == record
