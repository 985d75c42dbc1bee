"""The HTTP server: how much of an empty FastAPI route's rate is left, and how it bears two hundred clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from benchmarks.harness import Bench, Figure, at_least, at_most, below, for_information, median_ratio
from benchmarks.http_load import Exchange, Tally, drive, request

LEAST_RATIO = 0.6
CONNECTIONS = 32
CLIENTS = 200
REST = 0.25
LEAST_OPERATIONS = 20_000
MOST_LAG_MS = 20


@dataclass(slots=True)
class Server:
    """A running server; `lag` is filled when it has ended."""

    port: int
    lag: dict[str, float] = field(default_factory=dict)


async def run(bench: Bench) -> list[Figure]:
    """Measure in a loop as fast as the servers' own, or the load would be the slower side."""
    return await asyncio.to_thread(lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_measure(bench)))


async def _measure(bench: Bench) -> list[Figure]:
    with TemporaryDirectory(dir=bench.folder) as folder:
        return [*await _rates(bench, Path(folder)), *await _crowd(bench, Path(folder))]


async def _rates(bench: Bench, folder: Path) -> list[Figure]:
    """Take turns between the servers; what the machine does besides strikes all alike.

    The empty route runs as uvicorn is by default: with httptools, uvloop, and its access log.
    """
    seconds, rounds = bench.size(3, 1), bench.size(7, 3)
    async with (
        _server("empty") as empty,
        _server("trivial") as trivial,
        _server("sqlite", folder / "rate.db") as sqlite,
    ):
        sides = {
            "empty": (empty.port, request("GET", "/")),
            "trivial": (trivial.port, _get("1")),
            "sqlite": (sqlite.port, _get(await _one_memory(sqlite.port))),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        with bench.watch.steps("requests a second", rounds + 1) as done:
            for turn in range(rounds + 1):
                for name, (port, wanted) in sides.items():
                    rate = await _rate(port, wanted, seconds)
                    if turn:  # the first round warms all up
                        rates[name].append(rate)
                done(1)
    title = f"GET /memories/{{id}} to an empty FastAPI route, requests a second, {CONNECTIONS} connections"
    figures = [
        at_least(
            f"{title}, {said}",
            median_ratio(rates[name], rates["empty"]),
            LEAST_RATIO,
            rates={side: [round(rate) for rate in rates[side]] for side in (name, "empty")},
        )
        for name, said in (("trivial", "a backend that answers at once"), ("sqlite", "sqlite"))
    ]
    return [
        *figures,
        for_information("GET /memories/{id} on sqlite, requests a second", median(rates["sqlite"]), "1/s"),
    ]


async def _crowd(bench: Bench, folder: Path) -> list[Figure]:
    """Let two hundred clients add, read, list, and search for a minute, as people do: with a rest in between.

    Without the rest they would ask for all that two cores can give, and the lag would be that of a full queue.
    """
    seconds = bench.size(60, 5)
    async with _server("sqlite", folder / "crowd.db") as server:
        end = time.monotonic() + seconds
        tally = await drive(server.port, [_client(f"user-{number}", end) for number in range(CLIENTS)], pause=REST)
    lag = {name: round(value, 2) for name, value in server.lag.items()}
    return [
        at_least(f"operations by {CLIENTS} clients in {seconds} s", tally.done, bench.size(LEAST_OPERATIONS, 1)),
        at_most(f"failed operations of {CLIENTS} clients", tally.failed, 0),
        below(
            f"lag of the server's event loop under {CLIENTS} clients, p99", lag["lag_p99_ms"], MOST_LAG_MS, "ms", **lag
        ),
    ]


def _client(user: str, end: float) -> Exchange:
    """Return a client that adds a memory, and then reads it in every way, over and over."""
    step = 0
    target = ""

    def exchange(response: bytes) -> bytes | None:
        nonlocal step, target
        if time.monotonic() >= end:
            return None
        turn, step = step % 6, step + 1
        if turn == 0:
            body = {"content": f"note {step} of {user}: tea at noon, and bread", "user_id": user, "tags": ["note"]}
            return request("POST", "/memories", json.dumps(body).encode())
        if turn == 1:
            target = f"/memories/{_id(response)}?user_id={user}"
        if turn == 4:
            return request("GET", f"/memories/search?q=tea&user_id={user}")
        if turn == 5:
            return request("GET", f"/memories?limit=10&user_id={user}")
        return request("GET", target)

    return exchange


async def _rate(port: int, wanted: bytes, seconds: float) -> float:
    """Return how many requests a second the server answers on so many connections."""
    start = time.monotonic()
    end = start + seconds
    tally = await drive(port, [lambda _: wanted if time.monotonic() < end else None] * CONNECTIONS)
    _check(tally)
    return tally.done / (time.monotonic() - start)


def _get(id: str) -> bytes:
    return request("GET", f"/memories/{id}?user_id=user")


async def _one_memory(port: int) -> str:
    found: list[bytes] = []
    wanted = request("POST", "/memories", b'{"content": "tea at noon, and bread", "user_id": "user"}')

    def exchange(response: bytes) -> bytes | None:
        if response:
            found.append(response)
        return None if response else wanted

    _check(await drive(port, [exchange]))
    return _id(found[0])


def _id(response: bytes) -> str:
    record: dict[str, Any] = json.loads(response.partition(b"\r\n\r\n")[2])
    found: str = record["id"]
    return found


def _check(tally: Tally) -> None:
    if tally.failed:
        raise RuntimeError(f"{tally.failed} of {tally.failed + tally.done} requests failed")


@contextlib.asynccontextmanager
async def _server(kind: str, *arguments: Path) -> AsyncIterator[Server]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.http_process",
        kind,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        server = Server(int(await process.stdout.readline()))
        yield server
        process.send_signal(signal.SIGTERM)
        server.lag.update(json.loads(await process.stdout.readline()))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
