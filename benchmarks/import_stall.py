"""How long the event loop stands still while a vendor's SDK is imported, constructed, and called for the first time.

Each time in a new process, because nothing is imported twice: `python -m benchmarks.import_stall PROVIDER OPTIONS`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

from openproto_conformance.emulators.registry import emulator_class

from benchmarks.harness import Bench, Figure, below, for_information, not_run, spread
from benchmarks.ticker import Ticker
from openproto import AsyncMemory
from openproto.embedding import Embeddings, LocalEmbedder

LONGEST_MS = 20
INDEXED_WITHIN = 10.0
EMULATED = {
    "mem0, platform": "mem0",
    "letta": "letta",
    "supermemory": "supermemory",
    "memori": "memori",
    "memorysync": "memorysync",
    "memsy": "memsy",
}
EMBEDDER = "local embedder"
BLOCKING = {"mem0", "letta", "supermemory"}
"""Whose stalls are judged. The others are reported: one constructor of Memori's engine holds every thread for 60 ms."""

Stalls: TypeAlias = dict[str, float]


async def run(bench: Bench) -> list[Figure]:
    """Measure every adapter whose SDK is installed."""
    figures = await _measured(bench, "the local embedder", EMBEDDER, {})
    with TemporaryDirectory(dir=bench.folder) as folder:
        figures += await _measured(bench, "mem0, library", "mem0", {"path": folder})
    for name, provider in EMULATED.items():
        with emulator_class(provider)() as emulator:
            figures += await _measured(bench, name, provider, emulator.provider_options())
    return figures


async def _measured(bench: Bench, name: str, provider: str, options: Mapping[str, Any]) -> list[Figure]:
    what = f"{name}: longest stall of the loop from opening to the first answers"
    try:
        if provider != EMBEDDER:
            AsyncMemory(provider, **options)
    except ImportError as error:
        return [not_run(what, str(error))]
    judged = below if provider in BLOCKING else _told
    stalls = [await _in_a_process(provider, options) for _ in range(bench.size(11, 5))]
    longest = [one["longest"] for one in stalls]
    told = {f"{part}_ms": spread([one[part] for one in stalls]) for part in stalls[0]}
    return [
        judged(f"{what}, median of processes", median(longest), LONGEST_MS, "ms", **told),
        for_information(f"{what}, worst", max(longest), "ms"),
    ]


def _told(name: str, value: float, _: float, unit: str, **detail: Any) -> Figure:
    return for_information(name, value, unit, **detail)


async def _in_a_process(provider: str, options: Mapping[str, Any]) -> Stalls:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, provider, json.dumps(options), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"{provider}: the process ended with {child.returncode}")
    stalls: Stalls = json.loads(told)
    return stalls


async def _embedder_stalls() -> Stalls:
    """Return what `_stalls` does of the embedder that the library of mem0 is handed."""
    embeddings = Embeddings(LocalEmbedder())
    async with Ticker() as ticker:
        await embeddings.open()
        opened = ticker.longest
        await embeddings.embed_one("Ann prefers green tea")
    await embeddings.aclose()
    return {"opened": opened * 1e3, "longest": ticker.longest * 1e3}


async def _stalls(provider: str, options: Mapping[str, Any]) -> Stalls:
    """Return the milliseconds that the loop was late: idle for a second, opening, and in all until the end.

    The local embedder is loaded before, which is a separate figure.
    """
    await _embedder_stalls()
    client = AsyncMemory(provider, **options)
    async with Ticker() as idle:
        await asyncio.sleep(1.0)
    async with Ticker() as ticker, client as memory:
        opened = ticker.longest
        added = await memory.add("Ann prefers green tea", user_id="ann")
        await memory.wait_for_ingest([added.id], "ann", timeout=INDEXED_WITHIN)
        await memory.search("tea", "ann")
        await memory.get(added.id, user_id="ann")
    return {"idle": idle.longest * 1e3, "opened": opened * 1e3, "longest": ticker.longest * 1e3}


if __name__ == "__main__":
    _, measured, given = sys.argv
    told = _embedder_stalls() if measured == EMBEDDER else _stalls(measured, json.loads(given))
    print(json.dumps(asyncio.run(told)))
