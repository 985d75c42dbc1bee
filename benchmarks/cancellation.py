"""Cancellations of a running `search` on a busy postgres, with a pool of two, next to those of a bare asyncpg pool."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from openproto_adapters.postgres import Postgres

from benchmarks.corpus import Corpus, Load, ReadyEmbedder, load, users
from benchmarks.harness import Bench, Figure, at_most, next_to, p90, percentile
from benchmarks.search_latency import statement_of_a_search
from benchmarks.server import new_schema, raw_connection, raw_pool
from openproto import AsyncMemory, OpenProtoError

POOL = 2
LOADERS = 4
MOST = 1.5
AWAITER_MS, WHERE_BARE_MS = 50, 30
"""CancelledError within the first is asked for wherever the bare pool's comes within the second."""
LONGEST_S = 5.0
MEMORIES = 200_000  # of one user: a search takes a quarter of a second
BIG, SMALL = users(1, "big"), users(5, "small")


@dataclass(slots=True)
class Seen:
    """What was measured, in seconds, and what went wrong."""

    awaiter: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    too_late: int = 0
    swallowed: int = 0
    left_on_server: int = 0


@dataclass(frozen=True)
class Side:
    """A way to search: the slow search that is cancelled, and a small one that needs a free connection."""

    slow: Callable[[str], Coroutine[Any, Any, object]]
    small: Callable[[str, str], Coroutine[Any, Any, object]]


class Observer:
    """Looks at pg_stat_activity over a separate connection."""

    def __init__(self, connection: Any, schema: str) -> None:
        self._connection = connection
        self._mentions = f"%{schema}.memories%"
        self.pids: set[int] = set()

    async def running(self) -> set[int]:
        """Return the server processes that are busy with a statement on the schema."""
        rows = await self._connection.fetch(
            "SELECT pid, state FROM pg_stat_activity WHERE query LIKE $1 AND pid <> pg_backend_pid()", self._mentions
        )
        self.pids.update(row["pid"] for row in rows)
        return {row["pid"] for row in rows if row["state"] == "active"}

    async def alive(self) -> int:
        """Return how many of the server processes ever seen are still there."""
        return int(
            await self._connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])", self.pids
            )
        )


async def run(bench: Bench) -> list[Figure]:
    """Cancel both searches of the pool, then ask at once for what needs a free connection; and so on."""
    seen = {"ours": Seen(), "asyncpg": Seen()}
    async with new_schema(bench.url, "cancel") as schema, new_schema(bench.url, "cancel_load") as other:
        before = _held()
        async with _busy(bench, other), raw_connection(bench.url) as raw:
            observer = Observer(raw, schema)
            provider = Postgres(bench.url, schema=schema, embedder=ReadyEmbedder(), pool_min=POOL, pool_max=POOL)
            async with AsyncMemory(provider) as memory:
                await load(raw, Load(schema, BIG, MEMORIES), bench.watch)
                await load(raw, Load(schema, SMALL, 100), bench.watch)
                sql, arguments = await statement_of_a_search(bench.url, schema, "what is known", BIG[0])
                async with raw_pool(bench.url, POOL) as bare:
                    sides = {
                        "ours": Side(lambda query: memory.search(query, BIG[0]), memory.search),
                        "asyncpg": Side(
                            lambda _: bare.fetch(sql, *arguments), lambda _, user: bare.fetch("SELECT $1::text", user)
                        ),
                    }
                    await _cancel_many(bench, sides, observer, seen)
                pool, at_hand = provider._pool._pool, len(provider._pool._at_hand)
                left = {
                    "statements_still_running": len(await observer.running()),
                    "connections_not_idle": pool.get_size() - pool.get_idle_size() - at_hand,
                }
            await asyncio.sleep(0.5)
            left["server_processes"] = await observer.alive()
        await asyncio.sleep(0.1)  # a thread whose pool is closed needs a moment to end
        left |= {name: max(0, now - before[name]) for name, now in _held().items()}
    return _figures(seen, left)


async def _cancel_many(bench: Bench, sides: dict[str, Side], observer: Observer, seen: dict[str, Seen]) -> None:
    """Let the sides take turns."""
    cancels = 40
    with bench.watch.steps("cancelling", cancels) as done:
        while any(len(each.awaiter) + each.swallowed < cancels for each in seen.values()):
            for name, side in sides.items():
                await _cancel_both(side, observer, seen[name])
            done(POOL)
    await asyncio.sleep(1)


def _figures(seen: dict[str, Seen], left: dict[str, int]) -> list[Figure]:
    name = "cancelled search on postgres"
    ours, bare = seen["ours"], seen["asyncpg"]
    p99 = {side: percentile(each.awaiter, 0.99) * 1e3 for side, each in seen.items()}
    return [
        *(
            next_to(f"{name}: {what}, p90 / bare asyncpg's under the same load", p90, took, control, MOST)
            for what, took, control in (
                ("CancelledError", ours.awaiter, bare.awaiter),
                ("the pool serves again", ours.back, bare.back),
                ("gone from pg_stat_activity", ours.gone, bare.gone),
            )
        ),
        Figure(
            f"{name}: CancelledError, p99",
            p99["ours"],
            "ms",
            f"<= {AWAITER_MS} where asyncpg's is below {WHERE_BARE_MS}",
            p99["ours"] <= AWAITER_MS or p99["asyncpg"] >= WHERE_BARE_MS,
            {"asyncpg_ms": p99["asyncpg"], "ended_before_it_was_cancelled": ours.too_late},
        ),
        at_most("cancelled search: CancelledError swallowed", ours.swallowed, 0),
        at_most("cancelled search: still running after 5 s", ours.left_on_server, 0),
        at_most("cancelled search: left behind at the end", sum(left.values()), 0, "", **left),
    ]


async def _cancel_both(side: Side, observer: Observer, seen: Seen) -> None:
    """Fill the pool with slow searches, cancel them while the server works on them, and see it recover."""
    searches = [asyncio.create_task(side.slow(query)) for query in Corpus(23).queries(POOL)]
    await _until_running(observer, searches)
    await asyncio.sleep(random.uniform(0, 0.05))
    start = time.perf_counter()
    cancelled = [search for search in searches if search.cancel()]
    seen.too_late += len(searches) - len(cancelled)
    waits = [asyncio.create_task(_ended(search)) for search in cancelled]
    recovers = asyncio.create_task(_recovers(side))
    gone = asyncio.create_task(_gone(observer, start))
    ends = await asyncio.gather(*waits)
    for search, end in zip(cancelled, ends, strict=True):
        if search.cancelled():
            seen.awaiter.append(end - start)
        else:
            seen.swallowed += 1
    seen.back.append(await recovers - start)
    left_at = await gone
    if left_at is None:
        seen.left_on_server += 1
    else:
        seen.gone.append(left_at - start)


async def _until_running(observer: Observer, searches: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until the server works on all the searches, or one has ended already."""
    running = 0
    while running < len(searches) and not any(search.done() for search in searches):
        await asyncio.sleep(0.002)
        running = len(await observer.running())


async def _ended(search: asyncio.Task[Any]) -> float:
    """Return when the awaiting task goes on."""
    await asyncio.wait([search])
    return time.perf_counter()


async def _recovers(side: Side) -> float:
    """Return when as many small searches as the pool has places, all of which were taken, have their answers."""
    (query,) = Corpus(29).queries(1)
    await asyncio.gather(*(side.small(query, user) for user in SMALL[:POOL]))
    return time.perf_counter()


async def _gone(observer: Observer, start: float) -> float | None:
    """Return when the server works on nothing of this side any more; None when `LONGEST_S` was not enough."""
    while time.perf_counter() - start < LONGEST_S:
        if not await observer.running():
            return time.perf_counter()
        await asyncio.sleep(0.002)
    return None if await observer.running() else time.perf_counter()


@asynccontextmanager
async def _busy(bench: Bench, schema: str) -> AsyncIterator[None]:
    """Keep the loop and the server busy with other clients' searches and adds."""
    async with AsyncMemory(
        "postgres", url=bench.url, schema=schema, embedder=ReadyEmbedder(), pool_min=LOADERS, pool_max=LOADERS
    ) as memory:
        people = users(20)
        async with raw_connection(bench.url) as raw:
            await load(raw, Load(schema, people, 500), bench.watch)
        corpus = Corpus(31)
        texts = corpus.texts(500)

        async def work(number: int) -> None:
            for turn in range(1_000_000_000):
                text = texts[(turn * LOADERS + number) % len(texts)]
                await memory.search(text, people[turn % len(people)])
                await memory.add(text, user_id=people[number])

        workers = [asyncio.create_task(work(number)) for number in range(LOADERS)]
        await asyncio.sleep(0.5)  # every connection is open, every thread is started
        try:
            yield
        finally:
            for worker in workers:
                worker.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
    if failures := [error for error in ended if isinstance(error, OpenProtoError)]:
        raise failures[0]


def _held() -> dict[str, int]:
    """Count what a process can leak."""
    return {
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0,
    }
