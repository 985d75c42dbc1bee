"""The calls of the sqlite provider where the file can be looked at, alone, together, and cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from openproto_adapters.sqlite import adding, lanes, statements, word_index
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.lanes import Connection
from sqlite_tools import check_consistent, database_of, indexed, memory, rows
from waiting import cancelled, until

from openproto import AsyncMemory, MemoryRecord, ProviderUnavailableError
from openproto.provider import Outcomes


async def leave_on_disk(client: AsyncMemory, spare: int) -> None:
    """Let the file grow by `spare` pages and no more: SQLite then fails exactly as on a full disk."""

    def limit(db: Any) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + spare}")

    await database_of(client).write(limit)


@pytest.mark.parametrize("spare", [0, 2, 10])
async def test_a_full_disk_is_a_typed_error_with_nothing_half_written_and_reads_work(path: Path, spare: int) -> None:
    items: list[dict[str, Any]] = [{"content": f"{n} " + "many words " * 2_000, "user_id": "ada"} for n in range(50)]
    async with memory(path, audit_reads=False) as client:
        old, tea = [await client.add(text, user_id="ada") for text in ("old", "green tea")]
        await leave_on_disk(client, spare)
        assert [type(outcome) for outcome in await client.add_many(items)] == [ProviderUnavailableError] * 50
        with pytest.raises(ProviderUnavailableError, match="full") as caught:
            await client.update(tea.id, content="z" * 100_000)
        assert caught.value.retryable
        assert check_consistent(path) == 2
        stored = 0

        async def add_until_full() -> None:
            nonlocal stored
            for item in items:
                await client.add(**item, supersedes=[old.id])
                stored += 1

        with pytest.raises(ProviderUnavailableError, match="full"):
            await add_until_full()
        assert check_consistent(path) == stored + 2
        assert await client.get(tea.id) == tea
        assert len(await client.search("tea", "ada")) == 1
        await leave_on_disk(client, 1000)
        assert all(isinstance(outcome, MemoryRecord) for outcome in await client.add_many(items))


async def test_deleting_leaves_no_words_behind_and_the_words_of_two_users_are_distinct(path: Path) -> None:
    async with memory(path) as client:
        for user in ("ada", "bob"):
            added = await client.add("green tea", user_id=user)
        await database_of(client).write_alone(word_index.extend)
        ada, bob = ({term for number, term in indexed(path) if number == its} for its in (1, 2))
        assert (len(ada), len(bob), ada & bob) == (4, 4, set())
        await client.delete(added.id)
        await client.delete_all("ada")
    assert indexed(path) == {*rows(path, "SELECT * FROM memories")} == set()


async def test_what_waits_for_the_index_is_found_and_goes_into_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def found(client: AsyncMemory) -> list[str]:
        return sorted(hit.memory.content for hit in await client.search("green", "ada") if hit.score == 1)

    async with memory(path) as client, memory(path) as other:
        indexed_one = await client.add("green tea", user_id="ada")
        await database_of(client).write_alone(word_index.extend)
        waiting = await client.add("green lamp", user_id="ada")
        await client.add("green bag", user_id="bob")
        assert await found(client) == await found(other) == ["green lamp", "green tea"]
        for one in (indexed_one, waiting):
            assert (await other.add(one.content, user_id="ada", on_duplicate="skip")).duplicate_of == one.id
            await client.update(one.id, content="a bike")
        assert await found(client) == await found(other) == []
        for one in (indexed_one, waiting):
            await client.update(one.id, content="green grass")
            assert check_consistent(path) == 3
        await other.delete(waiting.id)
        await client.delete_all("bob")
        await client.add("green leaf", user_id="ada")  # under a number that nothing had
        assert await found(client) == await found(other) == ["green grass", "green leaf"]
        assert rows(path, "SELECT indexed FROM store") == [(1,)]
        monkeypatch.setattr(word_index, "MOST_WAITING", 1)
        await client.add_many([{"content": f"green {n}", "user_id": "ada"} for n in range(3)])
        await until(lambda: rows(path, "SELECT indexed FROM store") == rows(path, "SELECT max(number) FROM memories"))
        assert len(await found(client)) == len(await found(other)) == 5
        await client.delete_all("ada")
        await client.add("green again", user_id="ada")  # above those that the index had
        assert await found(other) == ["green again"]
    assert check_consistent(path) == 1


async def test_a_search_indexes_what_an_ended_process_left_waiting(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with memory(path) as client:
        await client.add_many([{"content": f"green {n}", "user_id": "ada"} for n in range(5)])
    monkeypatch.setattr(word_index, "_MOST_READ", 3)
    async with memory(path) as client:
        assert len(await client.search("green", "ada")) == 5
        await until(lambda: rows(path, "SELECT indexed FROM store") == [(5,)])
        assert len(await client.search("green", "ada")) == 5
    assert check_consistent(path) == 5


async def test_writes_index_what_is_too_much_for_the_next_search(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_index, "_REST_SECONDS", 60.0)
    monkeypatch.setattr(word_index, "MOST_WAITING", 2)
    monkeypatch.setattr(word_index, "MOST_LEFT", 3)
    async with memory(path) as client:
        for _ in range(2):
            await client.add_many([{"content": f"green {n}", "user_id": "ada"} for n in range(6)])
    assert rows(path, "SELECT indexed FROM store") == [(4,)]
    assert check_consistent(path) == 12


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
        records = await asyncio.wait_for(asyncio.gather(*adds), 5)
        assert writing.cancelled()
        assert {record.id async for record in client.iter("ada")} >= {record.id for record in records}
        assert rows(path, "SELECT * FROM keys WHERE idempotency_key = 'half'") == []
    assert check_consistent(path) == 7


async def test_adds_of_one_moment_are_one_batch_or_written_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    refuses: list[str] = []
    add_many = adding.add_many

    def refused(db: Connection, batch: Sequence[adding.Asked], model: str | None) -> Outcomes:
        sizes.append(len(batch))
        outcomes = add_many(db, batch, model)
        if len(batch) > 1 and refuses:
            raise sqlite3.IntegrityError("one of them")
        return outcomes

    monkeypatch.setattr(adding, "add_many", refused)
    async with memory(path, audit_reads=False) as client:
        one, other = client.add("tea", user_id="ada", source={"app": "a"}), client.add("milk", user_id="bob", scope="s")
        records = [*await asyncio.gather(one, other)]
        assert sizes == [2]
        assert [entry.app for entry in await client.audit("ada")] == ["a"]
        assert [entry.scope for entry in await client.audit("bob")] == ["s"]
        refuses.append("batches")
        records += await asyncio.gather(*(client.add(f"tea {n}", user_id="ada", confidence=0.5) for n in range(3)))
        assert sizes == [2, 3, 1, 1, 1]
        assert [await client.get(record.id) for record in records] == records
    assert check_consistent(path) == 5


@pytest.mark.parametrize("first_goes_alone", [True, False])
async def test_gets_cancelled_while_locked_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, first_goes_alone: bool
) -> None:
    def waits(*_: object) -> None:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    async with memory(path, audit_reads=False) as client:
        record = await client.add("note", user_id="ada")
        lane = database_of(client)._readers
        database_of(client)._gets._last_was_single = first_goes_alone
        with monkeypatch.context() as patch:
            patch.setattr(statements, "get_each", waits)
            running = [asyncio.create_task(client.get(record.id)) for _ in range(5)]
            await until(lambda: [*map(len, lane._running.values())] == [1 if first_goes_alone else 5])
            await cancelled(*running, seconds=5)
            await until(lambda: not lane._running)
        assert await asyncio.wait_for(client.get(record.id), 5) == record


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


@pytest.mark.parametrize("way", ["read", "write_alone"])
async def test_a_cancelled_statement_is_interrupted_and_its_connection_serves_the_next(
    database: Database, way: str
) -> None:
    slow, waiting, run = Slow(), Slow(), getattr(database, way)
    running = asyncio.create_task(run(slow))
    await until(slow.began.is_set)
    behind = asyncio.create_task(run(waiting))
    await asyncio.sleep(0.05)
    for task in (behind, running):
        assert await cancelled(task)  # the statement lasts longer than this waits
    async with asyncio.timeout(10):
        assert await run(lambda db: db.execute(COUNT.format(300_000)).fetchone()) == (300_000,)
    assert (slow.ended.is_set(), waiting.began.is_set()) == (True, False)


async def test_closing_interrupts_what_runs_and_raises_in_its_caller(database: Database) -> None:
    slow = Slow()
    running = asyncio.create_task(database.read(slow))
    await until(slow.began.is_set)
    await asyncio.wait_for(database.close(), 10)
    with pytest.raises(ProviderUnavailableError, match="closed while this call was running"):
        await running


async def test_what_a_call_wrote_is_taken_back_though_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_STEPS_BETWEEN_LOOKS", 1)

    def half(db: Connection) -> None:
        db.execute(INSERT)
        db.job.give_up()
        raise KeyError("bug")

    def whole(key: str) -> Callable[[Connection], Any]:
        return lambda db: db.execute(INSERT.replace("'k'", f"'{key}'"))

    await database.read(lambda db: db.job.give_up())
    writes = [database.write(function) for function in (whole("before"), half, whole("behind"))]
    assert sum(isinstance(each, BaseException) for each in await asyncio.gather(*writes, return_exceptions=True)) == 1
    await database.read(lambda db: db.execute("DELETE FROM main.keys"))  # which ends with what it read
    assert rows(database.path, "SELECT idempotency_key FROM keys") == [("before",), ("behind",)]
