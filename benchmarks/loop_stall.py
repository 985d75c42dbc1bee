"""How long the event loop stands still while a hundred `add`s embed and insert at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.corpus import Corpus
from benchmarks.harness import Bench, Figure, below, spread, uncollected
from benchmarks.server import new_schema
from benchmarks.ticker import Ticker
from openproto import AsyncMemory

LONGEST_MS = 20
ADDS = 100


async def run(bench: Bench) -> list[Figure]:
    """Measure both stores with the local embedder, each with an idle loop next to it."""
    rounds = bench.size(25, 9)
    figures: list[Figure] = []
    async with new_schema(bench.url, "stall") as schema:
        client = AsyncMemory("postgres", url=bench.url, schema=schema, embedder="local")
        figures.append(await _measure(bench, "postgres", client, rounds))
    with TemporaryDirectory(dir=bench.folder) as folder:
        client = AsyncMemory("sqlite", path=Path(folder) / "memory.db", embedder="local")
        figures.append(await _measure(bench, "sqlite", client, rounds))
    return figures


async def _measure(bench: Bench, name: str, client: AsyncMemory, rounds: int) -> Figure:
    corpus = Corpus(17)
    busy: list[float] = []
    idle: list[float] = []
    took: list[float] = []
    # A full garbage collection looks at all that the process has, the benchmark's own included: not the store's doing.
    async with client as memory:
        with uncollected(), bench.watch.steps(f"{ADDS} adds at once on {name}", rounds) as done:
            for _ in range(rounds):
                texts = corpus.texts(ADDS)
                async with Ticker() as ticker:
                    start = time.perf_counter()
                    await asyncio.gather(*(memory.add(text, user_id="user") for text in texts))
                    took.append(time.perf_counter() - start)
                busy.append(ticker.longest)
                async with Ticker() as ticker:
                    await asyncio.sleep(took[-1])
                idle.append(ticker.longest)
                done(1)
    return below(
        f"longest stall of the loop in {rounds} rounds of {ADDS} adds at once on {name}",
        max(busy) * 1e3,
        LONGEST_MS,
        "ms",
        first_ms=round(busy[0] * 1e3, 2),
        rounds_ms=spread(busy, 1e3),
        idle_loop_ms=spread(idle, 1e3),
        all_adds_ms=spread(took, 1e3),
    )
