"""Writes next to a mirror that is down, slow, and back: what they cost, and that both sides end up with the same."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

from openproto_adapters.sqlite import Sqlite
from openproto_conformance.checks import ensure
from parts import folder, sqlite

from openproto import AsyncMemory, MemoryRecord, Provider, ProviderUnavailableError
from openproto.client.layering import mirror_status
from openproto.layers.layer import Layer
from openproto.provider import RestoreOutcomes

USERS = [f"user{number}" for number in range(10)]
P99_BOUND = 1.0
"""Milliseconds that a mirror may add to the primary's 99th percentile."""
CAUGHT_UP_WITHIN = 300.0


class Moody(Layer):
    """A mirror that is up, slow, or down."""

    mood = "up"

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Restore, unless it is down."""
        if self.mood == "down":
            raise ProviderUnavailableError("the mirror is down")
        if self.mood == "slow":
            await asyncio.sleep(0.5)
        return await super().restore(records)


async def mirroring(chance: random.Random, writes: int) -> str:
    """Write with and without a mirror in turn; then wait until the mirror has the same as the primary."""
    mirrored: list[float] = []
    alone: list[float] = []
    with folder() as home:
        other = Moody(_plain(home / "mirror.db"))
        options = {"provider": other, "journal": str(home / "journal.db"), "sample": 0.0}
        control = sqlite(home / "control.db")
        async with control, AsyncMemory(_plain(home / "primary.db"), mirror=options) as memory:
            ids: dict[AsyncMemory, list[tuple[str, str]]] = {control: [], memory: []}
            for number in range(writes):
                other.mood = ("down", "slow", "up")[3 * number // writes]
                seed = chance.random()
                for client, took in ((control, alone), (memory, mirrored)):
                    began = time.perf_counter()
                    await _write(client, random.Random(seed), number, ids[client])
                    took.append(1000 * (time.perf_counter() - began))
            async with asyncio.timeout(CAUGHT_UP_WITHIN):
                while (status := mirror_status(home / "journal.db")).backlog:
                    await asyncio.sleep(0.1)
        ensure(status.state == "in step", f"the mirror is {status.state}")
        sides = [await _held(_plain(home / name)) for name in ("primary.db", "mirror.db")]
        ensure(sides[0] == sides[1], "the mirror has not the same")
    with_it, without = (quantiles(times, n=100)[98] for times in (mirrored, alone))
    ensure(with_it - without <= P99_BOUND, f"p99 is {with_it:.2f} ms, and without a mirror {without:.2f} ms")
    return f"{writes:,} writes, p99 {with_it:.2f} ms and {without:.2f} ms without a mirror, {len(sides[0]):,} records"


def _plain(path: Path) -> Provider:
    return Sqlite(path, embedder="none", synchronous="normal")


async def _write(memory: AsyncMemory, dice: random.Random, number: int, ids: list[tuple[str, str]]) -> None:
    user = dice.choice(USERS)
    kind = dice.randrange(10)
    if ids and kind == 0:
        old, owner = dice.choice(ids)
        await memory.update(old, user_id=owner, content=f"changed {number}", tags=["late"])
    elif ids and kind == 1:
        old, owner = ids.pop(dice.randrange(len(ids)))
        await memory.delete(old, user_id=owner)
    elif ids and kind == 2:
        old, owner = dice.choice(ids)
        ids.append(((await memory.add(f"instead {number}", user_id=owner, supersedes=[old])).id, owner))
    else:
        ids.append(((await memory.add(f"note {number}", user_id=user, scope="a/b")).id, user))


async def _held(provider: Provider) -> dict[str, Any]:
    async with AsyncMemory(provider) as memory:
        held: dict[str, Any] = {}
        for user in USERS:
            held |= {each.id: each.model_dump(exclude={"version"}) async for each in memory.iter(user, page_size=500)}
        return held
