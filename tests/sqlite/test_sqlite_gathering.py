"""Calls that are made at the same time go to the file together, and still each has its own answer, error, and end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from openproto_adapters.sqlite import Sqlite, statements
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Call, Connection
from sqlite_tools import check_consistent, memory, rows
from waiting import until

from openproto import AsyncMemory, ConflictError, NotFoundError, ProviderUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many calls each trip to the writer took along."""
    found: list[int] = []
    together = Database._write_together

    def counted(self: Database, calls: Sequence[Call], connection: Connection) -> list[Any]:
        found.append(len(calls))
        return together(self, calls, connection)

    monkeypatch.setattr(Database, "_write_together", counted)
    return found


class Gate:
    """A write that runs until it is let go, or its statement is interrupted."""

    def __init__(self, client: AsyncMemory) -> None:
        provider = client._session.provider
        assert isinstance(provider, Sqlite)
        self.database = provider._db
        self.began, self.opened = Event(), Event()

    def __call__(self, db: Connection) -> None:
        self.began.set()
        self.opened.wait(10)


def database_of(client: AsyncMemory) -> Database:
    return Gate(client).database


async def test_each_of_many_gets_has_its_own_answer(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    together = Database._read_together

    def counted(self: Database, calls: Sequence[Call], connection: Connection) -> list[Any]:
        read.append(len(calls))
        return together(self, calls, connection)

    monkeypatch.setattr(Database, "_read_together", counted)
    async with memory(path, audit_reads=False) as client:
        records = [await client.add(f"note {n}", user_id="ada" if n % 2 else "bob") for n in range(50)]
        wanted = [client.get(record.id, user_id="ada") for record in records]
        found = await asyncio.gather(*wanted, return_exceptions=True)
    for record, answer in zip(records, found, strict=True):
        assert answer == record if record.user_id == "ada" else isinstance(answer, NotFoundError)
    assert len({answer.request_id for answer in found if isinstance(answer, NotFoundError)}) == 25
    assert read == [50]


async def test_writes_of_all_kinds_are_one_transaction_in_which_each_fails_alone(path: Path, trips: list[int]) -> None:
    async with memory(path, audit_reads=False, client={"app": "tests"}) as client:
        first, second, third = [await client.add(f"note {n}", user_id="ada") for n in range(3)]
        await client.put("named", user_id="ada", key="k")
        trips.clear()
        calls: list[Awaitable[Any]] = [
            client.add("new", user_id="ada", supersedes=[first.id]),
            client.add("with a key in use", user_id="ada", key="k"),
            client.add("of nobody", user_id="bob", supersedes=[first.id]),
            client.put("renamed", user_id="ada", key="k"),
            client.put("stale", user_id="ada", key="k", if_version="0"),
            client.update(second.id, content="changed", user_id="ada"),
            client.update(third.id, content="foreign", user_id="bob"),
            client.delete(third.id, user_id="ada"),
            client.delete(third.id, user_id="ada"),
        ]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(answer) for answer in found if isinstance(answer, Exception)] == [
            ConflictError,
            NotFoundError,
            ConflictError,
            NotFoundError,
            NotFoundError,
        ]
        assert len({answer.request_id for answer in found if isinstance(answer, NotFoundError | ConflictError)}) == 5
        assert sorted([record.content async for record in client.iter("ada")]) == [
            "changed",
            "new",
            "note 0",
            "renamed",
        ]
        assert trips == [9]
        audit = await client.audit("ada")
        assert [entry.action for entry in audit][:4] == ["delete", "update", "update", "add"]
        assert len({entry.request_id for entry in audit}) == len(audit) == 8
        assert await client.audit("bob") == []
    assert check_consistent(path) == 4


async def test_a_call_that_finds_nobody_goes_alone_and_those_that_come_meanwhile_together(
    path: Path, trips: list[int]
) -> None:
    async with memory(path, audit_reads=False) as client:
        gate = Gate(client)
        alone = asyncio.create_task(gate.database.write(gate))
        await until(gate.began.is_set)
        adds = [asyncio.create_task(client.add(f"note {n}", user_id="ada")) for n in range(20)]
        await asyncio.sleep(0.05)
        for call in adds[::2]:
            call.cancel()  # it waits, and is taken out
        gate.opened.set()
        await asyncio.wait([alone, *adds], timeout=5)
        assert [call.cancelled() for call in adds] == [True, False] * 10
        assert trips == [1, 10]
        assert {record.id async for record in client.iter("ada")} == {call.result().id for call in adds[1::2]}
    assert check_consistent(path) == 10


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


@pytest.mark.parametrize("verb", ["get", "add"])
async def test_calls_that_are_all_cancelled_while_they_run_end_and_the_next_one_works(
    path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    async with memory(path, audit_reads=False) as client:
        record = await client.add("note", user_id="ada")

        def waits(*_: object) -> None:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error

        calls: dict[str, Callable[[], Any]] = {
            "get": lambda: client.get(record.id),
            "add": lambda: client.add("more", user_id="ada"),
        }
        database = database_of(client)
        with monkeypatch.context() as patch:
            if verb == "get":
                patch.setattr(statements, "get", waits)
                lane = database._readers
            else:
                patch.setattr(Database, "_when_free", lambda self, connection, action: stuck(connection))
                lane = database._writer
            running = [asyncio.create_task(calls[verb]()) for _ in range(5)]
            await until(lambda: len(lane._running) == 6)
            for call in running:
                call.cancel()
            await asyncio.wait(running, timeout=5)
            await until(lambda: not lane._running)
        async with asyncio.timeout(5):
            await calls[verb]()
    assert check_consistent(path) == (1 if verb == "get" else 2)


def stuck(connection: Connection) -> None:
    """Wait for a lock that never comes free, as `_when_free` does."""
    while not connection.job.cancelled:
        Event().wait(0.01)
    raise ProviderUnavailableError("cancelled")
