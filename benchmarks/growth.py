"""Whether one user's `search` slows down as everybody else's memories become more."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AsyncExitStack
from statistics import median

from benchmarks.corpus import Corpus, Load, ReadyEmbedder, load, users
from benchmarks.harness import Bench, Figure, Seconds, Step, at_most, spread, take_turns
from benchmarks.server import new_schema, raw_connection
from openproto import AsyncMemory

MOST = 1.5
MEMORIES_PER_USER = 1_000
SIZES = (10_000, 100_000, 1_000_000)


async def runs(bench: Bench, count: int) -> list[list[Figure]]:
    """Search stores of every size in turns, each in a separate schema, `count` times after filling them once."""
    sizes = SIZES[:2] if bench.quick else SIZES
    async with AsyncExitStack() as stack:
        sides: dict[str, Step] = {}
        for size in sizes:
            schema = await stack.enter_async_context(new_schema(bench.url, f"growth_{size}"))
            memory = await stack.enter_async_context(
                AsyncMemory("postgres", url=bench.url, schema=schema, embedder=ReadyEmbedder(), pool_max=2)
            )
            people = users(size // MEMORIES_PER_USER)
            async with raw_connection(bench.url) as connection:
                await load(connection, Load(schema, people, MEMORIES_PER_USER), bench.watch, seed=size)
            await _warm(bench, memory, people)
            sides[f"{size:,}"] = _searching(memory, _order(people))
        return [[_figure(await take_turns(sides, 300, warm=20))] for _ in range(count)]


def _figure(took: dict[str, Seconds]) -> Figure:
    first, *_, last = took
    return at_most(
        f"search on postgres, p50 at {last} rows / at {first} rows",
        median(took[last]) / median(took[first]),
        MOST,
        "x",
        memories_per_user=MEMORIES_PER_USER,
        milliseconds={size: spread(seconds, 1e3) for size, seconds in took.items()},
    )


async def _warm(bench: Bench, memory: AsyncMemory, people: list[str]) -> None:
    """Ask once for every user, so that all of the store that the searches need is in memory."""
    (query,) = Corpus(2).queries(1)
    with bench.watch.steps("warming up", len(people)) as done:
        for user in people:
            await memory.search(query, user)
            done(1)


def _searching(memory: AsyncMemory, order: Iterator[str]) -> Step:
    queries = Corpus(5).queries(200)

    async def search(turn: int) -> None:
        found = await memory.search(queries[turn % len(queries)], next(order))
        assert len(found) == 10, "a search found less than there is"

    return search


def _order(people: list[str]) -> Iterator[str]:
    """Yield the users in an order without a pattern, each as often as the others."""
    mixed = [people[place] for place in Corpus(11).random.permutation(len(people))]
    return itertools.cycle(mixed)
