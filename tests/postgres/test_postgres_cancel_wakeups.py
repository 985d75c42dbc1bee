"""Cancellation at each wakeup in turn: no moment of a call or of opening leaves anything behind."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any

import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import CLIENTS, MakeClient, connections, until, value


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


async def test_a_client_closed_while_it_opens_leaves_no_connection(make: MakeClient, dsn: str) -> None:
    rng = random.Random(3)

    async def none() -> bool:
        return await connections(dsn) == 0

    for _ in range(30):
        memory = make()
        call = asyncio.create_task(memory.list("ada"))
        await asyncio.sleep(rng.random() * 0.04)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        await memory.aclose()
        await until(none, "the end of every connection", 2)
