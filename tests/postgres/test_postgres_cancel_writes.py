"""Cancellation at random moments, many times: each write whole or absent, and no connection lost."""

from __future__ import annotations

import asyncio
import contextlib
import random

from postgres_tools import MakeClient, running


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
