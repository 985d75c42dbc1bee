"""Cancellation: prompt for the caller, whole or absent in the table, and over in the server (PROTOCOL 4.4)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import asyncpg
import pytest
from postgres_tools import LONG, PROMPT, MakeClient, sql, tasks, until, value

from openproto import AsyncMemory

RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'openproto' AND state <> 'idle'"
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'openproto'"


@contextlib.asynccontextmanager
async def stuck(dsn: str, schema: str) -> AsyncIterator[None]:
    """Whatever touches the memories runs in the server without end until the block is left."""
    connection = await asyncpg.connect(dsn, timeout=LONG)
    try:
        await connection.execute(f"BEGIN; LOCK TABLE {schema}.memories")
        yield
    finally:
        await connection.close()


async def running(dsn: str, count: int) -> None:
    async def as_many() -> bool:
        return await value(dsn, RUNNING) == count

    await until(as_many, f"{count} statements in the server", 5)


async def by_task(call: Callable[[], Awaitable[Any]], ready: Callable[[], Awaitable[None]]) -> float:
    task = asyncio.ensure_future(call())
    await ready()
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began


async def by_timeout(call: Callable[[], Awaitable[Any]], ready: Callable[[], Awaitable[None]]) -> float:
    async with asyncio.timeout(LONG) as deadline:
        at = 0.0

        async def soon() -> None:
            nonlocal at
            await ready()
            at = time.monotonic()
            deadline.reschedule(asyncio.get_running_loop().time())

        watcher = asyncio.create_task(soon())
        try:
            await call()
        except asyncio.CancelledError:
            await_time = time.monotonic() - at
        else:
            pytest.fail("the call was not cancelled")
        # Only to be tidy: it has ended by itself.
        watcher.cancel()
    return await_time


async def by_scope(call: Callable[[], Awaitable[Any]], ready: Callable[[], Awaitable[None]]) -> float:
    ended = False
    at = 0.0

    async def run(scope: anyio.CancelScope) -> None:
        nonlocal ended
        with scope:
            await call()
        ended = scope.cancelled_caught

    async with anyio.create_task_group() as group:
        scope = anyio.CancelScope()
        group.start_soon(run, scope)
        await ready()
        at = time.monotonic()
        scope.cancel()
    assert ended
    return time.monotonic() - at


WAYS = [by_task, by_timeout, by_scope]


@pytest.mark.parametrize("cancel", WAYS)
@pytest.mark.parametrize("verb", ["search", "add", "add_many", "update", "delete", "list", "get", "context"])
async def test_a_verb_that_runs_in_the_server_is_cancelled_at_once_and_ends_there_too(
    make: MakeClient, dsn: str, schema: str, verb: str, cancel: Any
) -> None:
    async with make(pool_max=1) as memory:
        record = await memory.add("kept", user_id="ada")
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "search": lambda: memory.search("kept", "ada"),
            "add": lambda: memory.add("new", user_id="ada"),
            "add_many": lambda: memory.add_many([{"content": "new", "user_id": "ada"}]),
            "update": lambda: memory.update(record.id, content="changed"),
            "delete": lambda: memory.delete(record.id),
            "list": lambda: memory.list("ada"),
            "get": lambda: memory.get(record.id),
            "context": lambda: memory.context("kept", "ada"),
        }
        before = tasks()
        async with stuck(dsn, schema):
            assert await cancel(calls[verb], lambda: running(dsn, 1)) < PROMPT
            await running(dsn, 0)
        began = time.monotonic()
        assert (await memory.get(record.id)).content == "kept"
        assert time.monotonic() - began < 2 * PROMPT
        assert [found.content async for found in memory.iter("ada")] == ["kept"]

        async def only_before() -> bool:
            return tasks() <= before

        await until(only_before, "the end of every task of the call", 2)
        assert await value(dsn, CONNECTIONS) == 1


@pytest.mark.parametrize("cancel", WAYS)
async def test_a_call_that_waits_for_a_connection_is_cancelled_and_the_place_stays(
    make: MakeClient, dsn: str, schema: str, cancel: Any
) -> None:
    async with make(pool_max=1) as memory:
        record = await memory.add("kept", user_id="ada")
        async with stuck(dsn, schema):
            holder = asyncio.create_task(memory.get(record.id))
            await running(dsn, 1)
            for _ in range(5):
                assert await cancel(lambda: memory.list("ada"), lambda: asyncio.sleep(0.01)) < PROMPT
        assert (await holder).content == "kept"
        assert len((await memory.list("ada")).items) == 1


async def test_a_search_over_much_data_is_stopped_in_the_middle(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(pool_max=1) as memory:
        await memory.add("seed of the crowd", user_id="ada")
        names = await sql(dsn, f"SELECT string_agg(attname, ',') FROM pg_attribute WHERE {columns_of(schema)}")
        await sql(
            dsn,
            f"INSERT INTO {schema}.memories (id, idempotency_key, {names[0][0]}) SELECT gen_random_uuid(), n::text, "
            f"{names[0][0]} FROM {schema}.memories, generate_series(1, 60000) AS n",
        )
        before = time.monotonic()
        await memory.search("crowd", "ada")
        whole = time.monotonic() - before
        for part in (0.1, 0.3, 0.5, 0.7):
            call = asyncio.create_task(memory.search("crowd", "ada"))
            await asyncio.sleep(whole * part)
            call.cancel()
            began = time.monotonic()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            assert time.monotonic() - began < PROMPT
            await running(dsn, 0)
        assert len(await memory.search("crowd", "ada")) == 10


def columns_of(schema: str) -> str:
    return (
        f"attrelid = '{schema}.memories'::regclass AND attnum > 0 AND NOT attisdropped "
        "AND attname NOT IN ('id', 'idempotency_key')"
    )


@pytest.mark.parametrize("pool_max", [1, 5])
async def test_a_cancelled_add_has_happened_whole_or_not_at_all(
    make: MakeClient, dsn: str, schema: str, pool_max: int
) -> None:
    rng = random.Random(pool_max)
    async with make(pool_max=pool_max, audit_reads=False) as memory:
        old = [await memory.add(f"old {n}", user_id="ada") for n in range(200)]

        async def cancelled_add(n: int) -> None:
            call = asyncio.create_task(
                memory.add(f"new {n}", user_id="ada", supersedes=[old[n].id], idempotency_key=f"k{n}")
            )
            await asyncio.sleep(rng.random() * 0.008)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call

        for start in range(0, 200, pool_max):
            await asyncio.gather(*(cancelled_add(n) for n in range(start, start + pool_max)))
        await running(dsn, 0)
        stored = {record.content: record async for record in memory.iter("ada")}
        audited = {entry.memory_id for entry in await memory.audit("ada", limit=1000)}
        happened = 0
        for n in range(200):
            new = stored.get(f"new {n}")
            happened += new is not None
            assert stored[f"old {n}"].superseded_by == (new.id if new else None)
            assert new is None or new.id in audited
        assert len(audited) == 200 + happened
        # Repeating each under its key settles it: every one is there once.
        for n in range(200):
            again = await memory.add(f"new {n}", user_id="ada", supersedes=[old[n].id], idempotency_key=f"k{n}")
            assert (await memory.get(old[n].id)).superseded_by == again.id
        assert len([record async for record in memory.iter("ada")]) == 400


async def test_a_cancelled_batch_has_happened_whole_or_not_at_all(make: MakeClient, dsn: str) -> None:
    rng = random.Random(7)
    async with make(pool_max=2) as memory:
        for n in range(40):
            batch = [{"content": f"{n}/{i}", "user_id": "ada", "scope": f"b{n}"} for i in range(20)]
            call = asyncio.create_task(memory.add_many(batch))
            await asyncio.sleep(rng.random() * 0.015)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
        await running(dsn, 0)
        sizes = {len((await memory.list("ada", scope=f"b{n}")).items) for n in range(40)}
        assert sizes <= {0, 20}


@pytest.mark.parametrize("pool_max", [1, 5])
async def test_a_storm_of_cancellations_loses_no_connection(
    make: MakeClient, dsn: str, schema: str, pool_max: int
) -> None:
    rng = random.Random(pool_max)
    async with make(pool_max=pool_max, acquire_timeout=5.0) as memory:
        records = [await memory.add(f"tea number {n}", user_id="ada") for n in range(50)]
        before = tasks()

        async def one(n: int) -> None:
            verbs: list[Callable[[], Awaitable[Any]]] = [
                lambda: memory.search("tea", "ada"),
                lambda: memory.add("stormy", user_id="bob"),
                lambda: memory.list("ada"),
                lambda: memory.update(records[n % 50].id, scope="storm"),
                lambda: memory.get(records[n % 50].id),
            ]
            way = rng.randrange(3)
            seconds = rng.random() * 0.02
            if way == 0:
                task = asyncio.ensure_future(rng.choice(verbs)())
                await asyncio.sleep(seconds)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.exception() is None
            elif way == 1:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await rng.choice(verbs)()
            else:
                with anyio.move_on_after(seconds):
                    await rng.choice(verbs)()

        for start in range(0, 300, 20):
            await asyncio.gather(*(one(n) for n in range(start, start + 20)))
        await running(dsn, 0)
        # Every place of the pool must still work, all at the same time.
        async with stuck(dsn, schema):
            held = [asyncio.create_task(memory.get(record.id)) for record in records[:pool_max]]
            await running(dsn, pool_max)
        assert [record.id for record in await asyncio.gather(*held)] == [record.id for record in records[:pool_max]]
        assert await value(dsn, CONNECTIONS) <= pool_max

        async def only_before() -> bool:
            return tasks() <= before

        await until(only_before, "the end of every task of the storm", 2)


async def cancelled_at(call: asyncio.Task[Any], wakeup: int) -> bool:
    """Cancel the call just before it wakes up for the given time, what it waited for being there already."""
    seen = 0
    while not call.done():
        waiter: Any = getattr(call, "_fut_waiter", None)
        if waiter is not None and waiter.done():
            seen += 1
            if seen == wakeup:
                call.cancel()
                await asyncio.wait([call])
                return True
        await asyncio.sleep(0)
    return False


@pytest.mark.parametrize("statement_cache_size", [0, 100])
@pytest.mark.parametrize("verb", ["get", "add", "search", "update"])
async def test_a_call_cancelled_at_any_wakeup_leaves_no_transaction_open(
    make: MakeClient, dsn: str, schema: str, verb: str, statement_cache_size: int
) -> None:
    # asyncpg parses a statement in one round trip and runs it in the next; in between the server's transaction is
    # open, with locks on the tables, and behind PgBouncer the server's connection belongs to nobody else.
    locks = f"SELECT count(*) FROM pg_locks WHERE relation = '{schema}.memories'::regclass"

    async def none() -> bool:
        return await value(dsn, locks) == 0 and await value(dsn, RUNNING) == 0

    async with make() as memory:
        record = await memory.add("kept", user_id="ada")
    wakeup = struck = 1
    while struck:
        # A fresh client each time: its connection has not seen the statement yet.
        async with make(pool_max=1, statement_cache_size=statement_cache_size, audit_reads=False) as memory:
            calls: dict[str, Callable[[], Any]] = {
                "get": lambda: memory.get(record.id),  # noqa: B023 - called in this turn
                "add": lambda: memory.add("new", user_id="ada"),  # noqa: B023
                "search": lambda: memory.search("kept", "ada"),  # noqa: B023
                "update": lambda: memory.update(record.id, scope="s"),  # noqa: B023
            }
            struck = await cancelled_at(asyncio.ensure_future(calls[verb]()), wakeup)
            await until(none, f"the end of the transaction after wakeup {wakeup}", 1)
        wakeup += 1
    assert wakeup > 3


async def test_closing_while_a_statement_is_stuck_is_bounded_and_ends_it(
    make: MakeClient, dsn: str, schema: str
) -> None:
    memory: AsyncMemory = make(pool_max=2, close_timeout=0.6)
    record = await memory.add("kept", user_id="ada")
    async with stuck(dsn, schema):
        calls = [asyncio.create_task(memory.get(record.id)) for _ in range(4)]
        await running(dsn, 2)
        began = time.monotonic()
        await memory.aclose()
        assert time.monotonic() - began < 3
        await running(dsn, 0)
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 3)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
    with pytest.raises(RuntimeError, match="closed"):
        await memory.get(record.id)


async def test_opening_that_is_cancelled_leaves_no_connection(make: MakeClient, dsn: str) -> None:
    rng = random.Random(3)
    for _ in range(30):
        memory = make()
        call = asyncio.create_task(memory.list("ada"))
        await asyncio.sleep(rng.random() * 0.04)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await memory.aclose()

    async def none() -> bool:
        return await value(dsn, CONNECTIONS) == 0

    await until(none, "the end of every connection", 5)
