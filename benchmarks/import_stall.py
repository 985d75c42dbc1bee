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

from benchmarks.harness import Bench, Figure, at_most, for_information, not_run, spread
from benchmarks.ticker import Ticker, beside_computing
from openproto import AsyncMemory
from openproto.embedding import Embeddings, LocalEmbedder

MOST = 2.0
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
    what = f"{name}: stall of the loop from opening to the first answers"
    try:
        if provider != EMBEDDER:
            AsyncMemory(provider, **options)
    except ImportError as error:
        return [not_run(what, str(error))]
    stalls = [await _in_a_process(provider, options) for _ in range(3)]
    longest, control = ([one[part] for one in stalls] for part in ("longest", "control"))
    told = {f"{part}_ms": spread([one[part] for one in stalls]) for part in stalls[0]}
    return [
        at_most(
            f"{what}, median of processes / an empty loop's beside a thread",
            median(longest) / median(control),
            MOST,
            "x",
            **told,
        ),
        for_information(f"{what}, worst", max(longest), "ms"),
    ]


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
    return {"opened": opened * 1e3, "longest": ticker.longest * 1e3, "control": await beside_computing(0.5) * 1e3}


async def _stalls(provider: str, options: Mapping[str, Any]) -> Stalls:
    """Return the milliseconds that the loop was late: opening, in all until the end, and empty beside a busy thread.

    The local embedder is loaded before, which is a separate figure.
    """
    await _embedder_stalls()
    client = AsyncMemory(provider, **options)
    control = await beside_computing(0.5)
    async with Ticker() as ticker, client as memory:
        opened = ticker.longest
        added = await memory.add("Ann prefers green tea", user_id="ann")
        await memory.wait_for_ingest([added.id], "ann", timeout=INDEXED_WITHIN)
        await memory.search("tea", "ann")
        await memory.get(added.id, user_id="ann")
    return {"control": control * 1e3, "opened": opened * 1e3, "longest": ticker.longest * 1e3}


if __name__ == "__main__":
    _, measured, given = sys.argv
    told = _embedder_stalls() if measured == EMBEDDER else _stalls(measured, json.loads(given))
    print(json.dumps(asyncio.run(told)))
