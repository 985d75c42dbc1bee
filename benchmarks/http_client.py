"""`get` through passthrough next to a plain httpx client, over sockets, against a server that costs next to nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from statistics import median

import httpx

from benchmarks.harness import Bench, Figure, at_least, median_ratio, uncollected
from openproto import AsyncMemory

LEAST = 2.0
BESIDE = 32
CONCURRENCIES = (1, 8, BESIDE, 128)

# Answers every request that arrives with one of two bodies; the requests of one connection come one at a time.
_SERVER = """
import asyncio, json, uvloop

RECORD = {"id": "1", "content": "Ann prefers green tea in the morning", "user_id": "ann",
          "created_at": "2026-01-31T12:00:00.123456Z", "scope": "kitchen", "tags": ["tea"], "status": "done"}
CAPABILITIES = {"omp_version": "0.1", "provider": "fast", "verbs": ["get"], "x-openproto": {}}

def answer(value):
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%b" % (len(body), body)

record, capabilities = answer(RECORD), answer(CAPABILITIES)

class Fast(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(capabilities if data.startswith(b"GET /capabilities") else record)

async def main():
    server = await asyncio.get_running_loop().create_server(Fast, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()

uvloop.run(main())
"""

Get = Callable[[], Awaitable[object]]


async def run(bench: Bench) -> list[Figure]:
    """Measure every concurrency in turns, so that what else the machine does strikes all alike."""
    rounds, seconds = bench.size(5, 3), 0.01 * bench.size(50, 40)
    ours: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCIES}
    theirs: dict[int, list[float]] = {concurrency: [] for concurrency in CONCURRENCIES}
    with _server() as url:
        async with AsyncMemory("passthrough", base_url=url) as memory, httpx.AsyncClient(base_url=url) as plain:

            async def by_passthrough() -> None:
                await memory.get("1", user_id="ann")

            async def by_httpx() -> None:
                (await plain.get("/memories/1", params={"user_id": "ann"})).raise_for_status()

            with bench.watch.steps("requests to a fast server", rounds) as done:
                for _ in range(rounds):
                    for concurrency in CONCURRENCIES:
                        ours[concurrency].append(await _rate(by_passthrough, concurrency, seconds))
                        theirs[concurrency].append(await _rate(by_httpx, concurrency, seconds))
                    done(1)
    rates = {
        "passthrough_per_second": {str(beside): round(median(found)) for beside, found in ours.items()},
        "httpx_per_second": {str(beside): round(median(found)) for beside, found in theirs.items()},
    }
    return [
        at_least(
            f"get through passthrough, rate / httpx's own transport, {BESIDE} at once",
            median_ratio(ours[BESIDE], theirs[BESIDE]),
            LEAST,
            "x",
            **rates,
        ),
        at_least(
            "get through passthrough, rate at 128 at once / its rate at 1",
            median_ratio(ours[128], ours[1]),
            1.0,
            "x",
            **rates,
        ),
    ]


async def _rate(get: Get, concurrency: int, seconds: float) -> float:
    """Return how many requests a second end while `concurrency` of them are in flight."""
    count = 0
    start = time.perf_counter()

    async def work() -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            await get()
            count += 1

    with uncollected():
        await asyncio.gather(*(work() for _ in range(concurrency)))
    return count / (time.perf_counter() - start)


@contextmanager
def _server() -> Iterator[str]:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()
