"""Writes next to a mirror that is down, slow, and back: what they cost, and that both sides end up with the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from statistics import quantiles

from faulty import Faulty  # pyright: ignore[reportMissingImports]  __main__ adds its folder
from mirrored import Pair, write  # pyright: ignore[reportMissingImports]  __main__ adds its folder
from openproto_conformance.checks import ensure
from parts import folder, sqlite

from openproto import MemoryRecord, ProviderUnavailableError

USERS = [f"user{number}" for number in range(10)]
P99_BOUND = 1.0
"""Milliseconds that a mirror may add to the primary's 99th percentile."""
CAUGHT_UP_WITHIN = 300.0


async def mirroring(chance: random.Random, writes: int) -> str:
    mirrored: list[float] = []
    alone: list[float] = []
    mood = "down"

    async def moody(verb: str, records: Sequence[MemoryRecord]) -> None:
        if verb == "restore" and mood == "down":
            raise ProviderUnavailableError("the mirror is down")
        if verb == "restore" and mood == "slow":
            await asyncio.sleep(0.5)

    with folder() as home:
        pair = Pair(home)
        async with sqlite(home / "control.db") as control, pair.client(Faulty(pair.mirror, moody)) as memory:
            sides = [(control, alone, dict[str, list[str]]()), (memory, mirrored, dict[str, list[str]]())]
            for number in range(writes):
                mood = ("down", "slow", "up")[3 * number // writes]
                seed = chance.random()
                for client, took, ids in sides if number % 2 else sides[::-1]:  # the second finds a warm machine
                    began = time.perf_counter()
                    await write(client, random.Random(seed), USERS, ids)
                    took.append(1000 * (time.perf_counter() - began))
            await pair.caught_up(CAUGHT_UP_WITHIN)
        ensure(pair.status().state == "in step", f"the mirror is {pair.status().state}")
        count = await pair.same(*USERS)
    with_it, without = (quantiles(times, n=100)[98] for times in (mirrored, alone))
    ensure(with_it - without <= P99_BOUND, f"p99 is {with_it:.2f} ms, and without a mirror {without:.2f} ms")
    return f"{writes:,} writes, p99 {with_it:.2f} ms and {without:.2f} ms without a mirror, {count:,} records"
