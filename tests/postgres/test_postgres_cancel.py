"""Cancellation as the server sees it: a cancelled call's statement ends there too, and no transaction stays open."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import CLIENTS, MakeClient, connections, running, sql, stuck, tasks, until, value

from openproto import AsyncMemory


async def cancel(call: asyncio.Future[Any]) -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 5)  # the lock would be waited for without end


@pytest.mark.parametrize("verb", ["search", "add", "add_many", "update", "delete", "list", "get", "context"])
async def test_a_cancelled_statement_ends_in_the_server_and_its_connection_serves_the_next(
    make: MakeClient, dsn: str, schema: str, verb: str
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
            call = asyncio.ensure_future(calls[verb]())
            await running(dsn, 1)
            waiting = asyncio.ensure_future(memory.list("ada"))
            await asyncio.sleep(0.01)
            await cancel(waiting)
            await cancel(call)
            await running(dsn, 0)
        assert [found.content async for found in memory.iter("ada")] == ["kept"]

        async def only_before() -> bool:
            return tasks() <= before

        await until(only_before, "the end of every task of the call", 2)
        assert await connections(dsn) == 1


async def test_a_search_over_much_data_is_stopped_in_the_middle(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(pool_max=1) as memory:
        await memory.add("seed of the crowd", user_id="ada")
        ((columns,),) = await sql(
            dsn,
            f"SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = '{schema}.memories'::regclass "
            "AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'idempotency_key')",
        )
        await sql(
            dsn,
            f"INSERT INTO {schema}.memories (id, {columns}) SELECT gen_random_uuid(), {columns} "
            f"FROM {schema}.memories, generate_series(1, 60000) AS n",
        )
        before = time.monotonic()
        await memory.search("crowd", "ada")
        whole = time.monotonic() - before
        for part in (0.1, 0.3, 0.5, 0.7):
            call = asyncio.create_task(memory.search("crowd", "ada"))
            await asyncio.sleep(whole * part)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await call
            await running(dsn, 0)
        assert len(await memory.search("crowd", "ada")) == 10


async def test_closing_while_a_statement_is_stuck_is_bounded_and_ends_it(
    make: MakeClient, dsn: str, schema: str
) -> None:
    memory: AsyncMemory = make(pool_max=2, close_timeout=0.6)
    record = await memory.add("kept", user_id="ada")
    async with stuck(dsn, schema):
        calls = [asyncio.create_task(memory.get(key=key, user_id="ada")) for key in "abcd"]
        await running(dsn, 2)
        async with asyncio.timeout(10):
            await memory.aclose()
            await running(dsn, 0)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in outcomes)
    with pytest.raises(RuntimeError, match="closed"):
        await memory.get(record.id)


async def cancelled_at(call: asyncio.Future[Any], wakeup: int) -> bool:
    """Cancel the call just before it wakes up for the given time, when what it waited for is there already."""
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
    # open, with locks on the tables, and behind PgBouncer the server's connection is not free for others.
    open_ = f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS} AND state <> 'idle'"
    locks = f"SELECT count(*) FROM pg_locks WHERE relation = '{schema}.memories'::regclass"

    async def none() -> bool:
        return await value(dsn, locks) == 0 and await value(dsn, open_) == 0

    async with make() as memory:
        record = await memory.add("kept", user_id="ada")
    wakeup = struck = 1
    while struck:
        # A fresh client each time: its connection has not seen the statement yet.
        async with make(pool_max=1, statement_cache_size=statement_cache_size, audit_reads=False) as memory:
            calls: dict[str, Callable[[], Any]] = {
                "get": lambda: memory.get(record.id),
                "add": lambda: memory.add("new", user_id="ada"),
                "search": lambda: memory.search("kept", "ada"),
                "update": lambda: memory.update(record.id, scope="s"),
            }
            struck = await cancelled_at(asyncio.ensure_future(calls[verb]()), wakeup)
            await until(none, f"the end of the transaction after wakeup {wakeup}", 1)
        wakeup += 1
    assert wakeup > 3


@pytest.mark.parametrize("first", [True, False], ids=["empty database", "tables there"])
async def test_opening_that_is_cancelled_at_any_wakeup_leaves_no_connection(
    options: dict[str, Any], make: MakeClient, dsn: str, first: bool
) -> None:
    async def none() -> bool:
        return await connections(dsn) == 0

    if not first:
        async with make():
            pass
    wakeup = struck = 1
    while struck:
        provider = Postgres(**{**options, "pool_min": 2})
        struck = await cancelled_at(asyncio.ensure_future(provider.open()), wakeup)
        await provider.close()
        await until(none, f"the end of every connection after wakeup {wakeup}", 2)
        wakeup += 1
    assert wakeup > 5
