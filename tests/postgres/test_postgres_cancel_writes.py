"""Cancellation at random moments, many times: each write whole or absent, and no connection lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from postgres_tools import MakeClient, connections, running, stuck, tasks, until


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
        assert await connections(dsn) <= pool_max

        async def only_before() -> bool:
            return tasks() <= before

        await until(only_before, "the end of every task of the storm", 2)
