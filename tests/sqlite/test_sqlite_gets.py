"""Gets that are made at the same time are read together, and still each has its own answer and its own end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_adapters.sqlite.database import Database
from sqlite_tools import memory as sqlite
from waiting import until

from openproto import MemoryRecord, NotFoundError, ProviderUnavailableError


async def test_each_of_many_gets_has_its_own_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trips = 0
    read_once = Database.read_once

    async def counted(database: Database, function):  # type: ignore[no-untyped-def]
        nonlocal trips
        trips += 1
        return await read_once(database, function)

    async with sqlite(tmp_path / "memory.db", audit_reads=False) as memory:
        records = [await memory.add(f"note {n}", user_id="ada" if n % 2 else "bob") for n in range(50)]
        monkeypatch.setattr(Database, "read_once", counted)
        wanted = [memory.get(record.id, user_id="ada") for record in records]
        found = await asyncio.gather(*wanted, return_exceptions=True)
    for record, answer in zip(records, found, strict=True):
        if record.user_id == "ada":
            assert answer == record
        else:
            assert isinstance(answer, NotFoundError)
    requests = {answer.request_id for answer in found if isinstance(answer, NotFoundError)}
    assert len(requests) == 25
    assert trips == 1


async def test_a_cancelled_get_cancels_no_other(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "memory.db") as memory:
        record = await memory.add("note", user_id="ada")
        gets = [asyncio.create_task(memory.get(record.id)) for _ in range(20)]
        await asyncio.sleep(0)
        for call in gets[::2]:
            call.cancel()
        await asyncio.wait(gets, timeout=5)
        assert [call.cancelled() for call in gets] == [True, False] * 10
        assert {call.result().id for call in gets[1::2]} == {record.id}


async def test_gets_behind_a_lock_end_when_all_are_cancelled_and_the_next_one_works(tmp_path: Path) -> None:
    async with sqlite(tmp_path / "memory.db", audit_reads=False) as memory:
        record = await memory.add("note", user_id="ada")
        provider = memory._session.provider
        assert isinstance(provider, Sqlite)
        database = provider._db

        def waits(connection: object) -> MemoryRecord:
            raise error

        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("openproto_adapters.sqlite.gets._get", lambda db, ref: waits(db))
            gets = [asyncio.create_task(memory.get(record.id)) for _ in range(5)]
            await until(lambda: len(database._readers._running) == 1)
            for call in gets:
                call.cancel()
            await asyncio.wait(gets, timeout=5)
            await until(lambda: not database._readers._running)
        async with asyncio.timeout(5):
            assert await memory.get(record.id) == record


async def test_a_failed_trip_is_a_separate_error_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(database: Database, function: object) -> None:
        await asyncio.sleep(0)
        raise ProviderUnavailableError("the disk is gone")

    async with sqlite(tmp_path / "memory.db") as memory:
        monkeypatch.setattr(Database, "read_once", fails)
        errors = await asyncio.gather(*(memory.get(str(n)) for n in range(10)), return_exceptions=True)
        assert {type(error) for error in errors} == {ProviderUnavailableError}
        assert len({error.request_id for error in errors if isinstance(error, ProviderUnavailableError)}) == 10
        monkeypatch.undo()
