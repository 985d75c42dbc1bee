"""How long the event loop stands still while a hundred `add`s embed and insert at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.corpus import Corpus
from benchmarks.harness import Bench, Figure, next_to, p90, uncollected
from benchmarks.server import new_schema
from benchmarks.ticker import Ticker, beside_computing
from openproto import AsyncMemory

MOST = 2.0
ADDS = 100


async def run(bench: Bench) -> list[Figure]:
    """Measure both stores with the local embedder, each in turns with an empty loop next to a thread that computes."""
    rounds = bench.size(15, 9)
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
    control: list[float] = []
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
                control.append(await beside_computing(took[-1]))
                done(1)
    title = f"stall of the loop in {ADDS} adds at once on {name}, p90 of rounds / an empty loop's beside a thread"
    return next_to(title, p90, busy, control, MOST)
