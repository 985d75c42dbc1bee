"""Many calls at once: each with its own result, none in the way of another, the loop always free."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from openproto import MemoryRecord, NotFoundError
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal

area = Area("concurrency")

READS = 10
READ_WITHIN = 2.0
SLOWED_DOWN = 10
"""How many times longer than alone reads may take beside a write."""


@area.case(
    "add", "get", "update", hint="updates at once: a record read and written back whole loses the other's change"
)
async def updates_at_once_lose_nothing(bench: Bench) -> None:
    """Updates of different fields at the same time all hold, and of the same field one holds whole."""
    user = bench.user()
    for round in range(5):
        record = await bench.client.add("tea", user_id=user)
        scope = bench.supported(scope="kitchen")
        changes: list[Any] = [
            {"content": f"coffee {round}"},
            scope,
            {"tags": ["a", "b"]},
            {"confidence": 0.75},
        ]
        await asyncio.gather(*(bench.client.update(record.id, **change) for change in changes))
        got = await bench.client.get(record.id)
        fields = (got.content, got.scope, got.tags, got.confidence)
        equal(fields, (f"coffee {round}", scope.get("scope"), ["a", "b"], 0.75), "the fields after updates at once")
    record = await bench.client.add("tea", user_id=user)
    if bench.capabilities.features.supports_supersession:
        old = [(await bench.client.add(f"tea {n}", user_id=user)).id for n in range(8)]
        await asyncio.gather(*(bench.client.update(record.id, supersedes=[id]) for id in old))
        got = await bench.client.get(record.id)
        equal(sorted(got.supersedes), sorted(old), "what is superseded after updates at once")
    pairs: list[Any] = [{"content": f"text {n}", "tags": [f"tag {n}"]} for n in range(20)]
    await asyncio.gather(*(bench.client.update(record.id, **pair) for pair in pairs))
    got = await bench.client.get(record.id)
    ensure({"content": got.content, "tags": got.tags} in pairs, "the record is a mixture of two updates")


@area.case("add", "delete", hint="deletes at once: the row that is gone must be counted by one of them only")
async def one_of_many_deletes_succeeds(bench: Bench) -> None:
    """Of many deletes of one record at once, one succeeds and the others are NotFoundError."""
    record = await bench.client.add("tea", user_id=bench.user())
    deletes = [bench.client.delete(record.id) for _ in range(20)]
    outcomes = await asyncio.gather(*deletes, return_exceptions=True)
    equal(sum(outcome is None for outcome in outcomes), 1, "the number of deletes that succeeded")
    equal(sum(isinstance(o, NotFoundError) for o in outcomes), 19, "the number of NotFoundErrors")


@area.case("add", "get", hint="pools and locks: a call that waits must not hold what the others need")
async def one_slow_call_starves_no_other(bench: Bench) -> None:
    """While a slow write is under way, reads are answered."""
    user = bench.user()
    record = await bench.add("tea", user_id=user)

    async def read() -> None:
        for _ in range(READS):
            equal((await bench.client.get(record.id)).id, record.id, "the record read meanwhile")

    started = time.perf_counter()
    await read()
    within = max(READ_WITHIN, SLOWED_DOWN * (time.perf_counter() - started))
    held: list[asyncio.Future[MemoryRecord]] = []
    with bench.backend_stalled() as stalled:
        if stalled:
            held.append(asyncio.ensure_future(bench.client.add("slow", user_id=user)))
            await asyncio.sleep(0.02)
            reading = asyncio.ensure_future(read())
            await asyncio.wait({reading}, timeout=within)
            ensure(not held[0].done(), "the stalled write ended while the backend was held up")
            await _answered(reading, reading.done(), f"within {within:.1f} s of a write that was held up")
    await asyncio.gather(*held)
    items = [{"content": f"note {n} " * 50, "user_id": user} for n in range(bench.size(5000, 1000))]
    slow = asyncio.ensure_future(_first(bench, items))
    await asyncio.sleep(0.02)
    reading = asyncio.ensure_future(read())
    await asyncio.wait({reading}, timeout=within)
    # A backend may be busy with the write, and the slower; then that ends long after the reads.
    await asyncio.wait({reading, slow}, return_when=asyncio.FIRST_COMPLETED)
    await _answered(reading, reading.done(), f"within {within:.1f} s, nor while many writes were under way")
    await slow


async def _answered(reading: asyncio.Future[None], answered: bool, when: str) -> None:
    """Fail unless the reads had been answered; they are not under way any more then."""
    reading.cancel()
    await asyncio.wait({reading})
    ensure(answered, f"{READS} reads were not answered {when}")
    await reading


async def _first(bench: Bench, items: list[dict[str, str]]) -> MemoryRecord:
    return (await bench.add_many(items))[0]
