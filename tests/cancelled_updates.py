"""Updates that are cancelled at any moment, for every vendor whose `update` is emulated."""

from __future__ import annotations

import asyncio

from openproto import AsyncMemory


async def check_that_updates_are_whole(memory: AsyncMemory, user_id: str, *, updates: int) -> None:
    """Cancel each update a millisecond later than the one before: the memory is the old or the new, never older."""
    record = await memory.add("state 0", user_id=user_id, tags=["0"])
    now = 0
    for n in range(1, updates + 1):
        updating = asyncio.create_task(memory.update(record.id, content=f"state {n}", tags=[str(n)]))
        await asyncio.sleep(n * 0.001)
        updating.cancel()
        await asyncio.wait([updating])
        read = await memory.get(record.id)
        seen = int(read.content.removeprefix("state "))
        assert read.tags == [str(seen)]
        assert now <= seen <= n, "an update that a cancelled one had overtaken"
        now = seen
    assert (await memory.update(record.id, content="last")).content == "last"
