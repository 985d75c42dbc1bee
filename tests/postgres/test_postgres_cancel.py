"""Cancellation: prompt for the caller, whole or absent in the table, and over in the server (PROTOCOL 4.4)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from postgres_tools import LONG, PROMPT, MakeClient, connections, running, sql, stuck, tasks, until

from openproto import AsyncMemory


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
        assert await connections(dsn) == 1


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
            f"INSERT INTO {schema}.memories (id, {names[0][0]}) SELECT gen_random_uuid(), "
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
