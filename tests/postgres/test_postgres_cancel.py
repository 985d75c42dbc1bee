"""Cancellation as the server sees it: a cancelled call's statement ends there too, and no transaction stays open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import CLIENTS, Database, calls_of, tasks, until


async def test_a_cancelled_statement_ends_in_the_server_and_its_connection_serves_the_next(db: Database) -> None:
    async with db.client(pool_max=1) as memory:
        record = await memory.add("kept", user_id="ada")
        before = tasks()
        for verb, call in calls_of(memory, record.id, "kept").items():
            async with db.stuck():
                calls = [asyncio.ensure_future(call())]
                await db.running(1)
                calls.append(asyncio.create_task(memory.list("ada")))
                await asyncio.sleep(0.01)
                for cancelled in reversed(calls):
                    cancelled.cancel()
                    await asyncio.wait([cancelled], timeout=5)  # the lock would be waited for without end
                    assert cancelled.cancelled(), verb
                await db.running(0)
            assert (await memory.list("ada")).items == [record], verb

        async def only_before() -> bool:
            return tasks() <= before

        await until(only_before, "the end of every task of the calls", 2)
        assert await db.connections() == 1


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


@pytest.mark.parametrize(("verb", "statement_cache_size"), [("get", 0), ("add", 0), ("search", 100), ("update", 100)])
async def test_a_call_cancelled_at_any_wakeup_leaves_nothing_open(
    db: Database, verb: str, statement_cache_size: int
) -> None:
    # asyncpg parses a statement in one round trip and runs it in the next; in between the server's transaction is
    # open, with locks on the tables, and behind PgBouncer the server's connection is not free for others.
    open_ = f"SELECT count(*) FROM pg_stat_activity WHERE {CLIENTS} AND state <> 'idle'"
    locks = f"SELECT count(*) FROM pg_locks WHERE relation = '{db.schema}.memories'::regclass"

    async def none() -> bool:
        return await db.value(locks) == 0 and await db.value(open_) == 0

    async with db.client() as memory:
        record = await memory.add("kept", user_id="ada")
    wakeup = struck = 1
    while struck:
        # A fresh client each time: its connection has not seen the statement yet.
        async with db.client(pool_max=1, statement_cache_size=statement_cache_size, audit_reads=False) as memory:
            struck = await cancelled_at(asyncio.ensure_future(calls_of(memory, record.id, "new")[verb]()), wakeup)
            await until(none, f"the end of the transaction after wakeup {wakeup}", 1)
        wakeup += 1
    assert wakeup > 3


async def test_opening_that_is_cancelled_at_any_wakeup_leaves_no_connection(db: Database) -> None:
    async def none() -> bool:
        return await db.connections() == 0

    wakeup = struck = 1
    while struck:
        provider = Postgres(**db.options(pool_min=2))
        struck = await cancelled_at(asyncio.ensure_future(provider.open()), wakeup)
        await provider.close()
        await until(none, f"the end of every connection after wakeup {wakeup}", 2)
        wakeup += 1
    assert wakeup > 5
