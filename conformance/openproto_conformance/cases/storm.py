"""The storm: thousands of cancellations, and the client as good as new."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

from openproto import AsyncMemory
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal

area = Area("storm")

AT_ONCE = 50
UPDATES = 0.8  # from here on, a choice between 0 and 1 is an update
HINT = "whatever a cancelled call can lose: pool slots, connections, locks, threads; each storm loses a little"


@area.case("add", "get", "list", faces=("async",), seconds=120, hint=HINT)
async def a_pool_of_one_survives_a_storm(bench: Bench) -> None:
    """Ten thousand cancelled calls on a pool of one leave whole records and a client that works."""
    await _storm(bench, 1)


@area.case("add", "get", "list", faces=("async",), seconds=120, hint=HINT)
async def a_pool_of_five_survives_a_storm(bench: Bench) -> None:
    """Ten thousand cancelled calls on a pool of five leave whole records and a client that works."""
    await _storm(bench, 5)


async def _storm(bench: Bench, pool: int) -> None:
    client = await bench.open(bench.backend.pooled(pool))
    user, random = bench.user(), bench.random
    anchor = await client.add("the anchor holds", user_id=user, tags=["whole"])
    threads = threading.active_count()
    waits = False  # a provider whose verbs never wait cannot be struck
    cancelled, wanted = 0, bench.size(10_000, 500)
    most = 1.0 if "update" in bench.capabilities.verbs else UPDATES
    for round in range(10 * wanted // AT_ONCE):
        calls = [
            asyncio.ensure_future(_some_call(client, user, anchor.id, random.random() * most)) for _ in range(AT_ONCE)
        ]
        await asyncio.sleep(0)  # each is under way before the first is struck
        waits = waits or not all(call.done() for call in calls)
        for call in random.sample(calls, AT_ONCE):
            if random.random() < 0.1:
                await asyncio.sleep(random.random() * 0.001)
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=5.0)
        ensure(not pending, f"{len(pending)} calls were still running 5 s after they were cancelled")
        for call in calls:
            if not call.cancelled() and (error := call.exception()) is not None:
                raise error
        cancelled += sum(call.cancelled() for call in calls)
        ensure(threading.active_count() - threads <= bench.backend.threads, "the storm grows threads")
        if cancelled >= wanted or (round >= 10 and not waits):
            break
    bench.measure("cancelled", cancelled)
    ensure(
        cancelled >= wanted or not waits,
        f"only {cancelled} calls of {10 * wanted} were still running when they were cancelled",
    )
    async with asyncio.timeout(5.0):
        results = await asyncio.gather(*(client.get(anchor.id) for _ in range(20)))
    equal({record.content for record in results}, {"the anchor holds"}, "what is read after the storm")
    for record in await bench.inventory(user):
        equal(record.tags, ["whole"], "the tags of what the storm left")


def _some_call(client: AsyncMemory, user: str, id: str, choice: float) -> Awaitable[Any]:
    if choice < 0.4:
        return client.add("blown by the storm", user_id=user, tags=["whole"])
    if choice < 0.6:
        return client.get(id)
    if choice < UPDATES:
        return client.list(user, limit=5)
    return client.update(id, content="the anchor holds", tags=["whole"])
