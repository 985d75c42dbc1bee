"""The HTTP server: its CPU a request next to an empty FastAPI route's, its workers, and two hundred clients at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from benchmarks.corpus import Corpus
from benchmarks.harness import Bench, Figure, at_least, at_most, median_ratio
from benchmarks.http_load import Exchange, drive, request
from benchmarks.http_process import store
from benchmarks.server import new_schema

MOST_GET, MOST_SEARCH = 2.5, 3.0
LEAST_WORKERS = 1.7
CONNECTIONS = 16
MEMORIES = 1_000
CLIENTS = 200
REST = 0.25
LEAST_OPERATIONS = 0.9
LAG_OPERATIONS = 10
"""How many operations the loop may be late at p99, beyond what it is with an empty route."""
USER = "user"


@dataclass(slots=True)
class Server:
    """A running server; `lag` is filled when it has ended."""

    port: int
    process: asyncio.subprocess.Process
    lag: dict[str, float] = field(default_factory=dict)


async def run(bench: Bench) -> list[Figure]:
    """Measure in a loop as fast as the servers' own, or the load would be the slower side."""
    return await asyncio.to_thread(lambda: asyncio.Runner(loop_factory=uvloop.new_event_loop).run(_measure(bench)))


async def _measure(bench: Bench) -> list[Figure]:
    async with new_schema(bench.url, "http") as schema:
        with TemporaryDirectory(dir=bench.folder) as folder:
            stores: dict[str, list[str]] = {
                "sqlite": [str(Path(folder) / "rate.db")],
                "postgres": [bench.url, schema],
            }
            return [
                *await _costs(bench, stores),
                *await _workers(bench, stores["sqlite"][0]),
                *await _crowd(bench, Path(folder)),
            ]


async def _costs(bench: Bench, stores: dict[str, list[str]]) -> list[Figure]:
    """Take turns between the servers, and compare the CPU that each spends on a request.

    The empty route runs as uvicorn is by default: with httptools, uvloop, and its access log.
    """
    seconds, rounds = 1, 3
    ids = {name: await _loaded(name, arguments) for name, arguments in stores.items()}
    async with (
        _server("empty") as empty,
        _server("trivial") as trivial,
        _server("sqlite", *stores["sqlite"]) as sqlite,
        _server("postgres", *stores["postgres"]) as postgres,
    ):
        search = request("GET", f"/memories/search?q=tea+at+noon&user_id={USER}")
        sides = {
            "an empty route": (empty, request("GET", "/")),
            "a backend that answers at once": (trivial, _get("1")),
            "sqlite": (sqlite, _get(ids["sqlite"])),
            "postgres": (postgres, _get(ids["postgres"])),
            "search on sqlite": (sqlite, search),
            "search on postgres": (postgres, search),
        }
        costs: dict[str, list[float]] = {name: [] for name in sides}
        with bench.watch.steps("CPU a request", rounds + 1) as done:
            for turn in range(rounds + 1):
                for name, (server, wanted) in sides.items():
                    before = _cpu_seconds(server.process.pid)
                    count = await _requests(server.port, wanted, seconds)
                    if turn:  # the first round warms all up
                        costs[name].append((_cpu_seconds(server.process.pid) - before) / count)
                done(1)
    told = {f"{name}_us": round(median(found) * 1e6) for name, found in costs.items()}
    figures = [
        at_most(
            f"GET /memories/{{id}}, CPU of the server / an empty FastAPI route's, {name}",
            median_ratio(costs[name], costs["an empty route"]),
            MOST_GET,
            "x",
            **told,
        )
        for name in ("a backend that answers at once", "sqlite", "postgres")
    ]
    ratio = median_ratio(costs["search on sqlite"], costs["search on postgres"])
    title = f"search among {MEMORIES:,}, CPU of the server with sqlite / with postgres"
    return [*figures, at_most(title, ratio, MOST_SEARCH, "x", **told)]


async def _workers(bench: Bench, file: str) -> list[Figure]:
    """Compare the rates of searches of one worker process and of two."""
    seconds, rounds = 1, 3
    rates: dict[int, list[float]] = {1: [], 2: []}
    wanted = request("GET", f"/memories/search?q=tea+at+noon&user_id={USER}")
    async with _serving(file, 1) as one, _serving(file, 2) as two:
        for turn in range(rounds + 1):
            for count, port in ((1, one), (2, two)):
                rate = await _requests(port, wanted, seconds) / seconds
                if turn:
                    rates[count].append(rate)
    title = "searches a second on sqlite, two workers / one"
    return [at_least(title, median_ratio(rates[2], rates[1]), LEAST_WORKERS, "x", rates=rates)]


async def _crowd(bench: Bench, folder: Path) -> list[Figure]:
    """Let two hundred clients add, read, list, and search, as people do: with a rest in between.

    Without the rest they would ask for all that two cores can give, and the lag would be that of a full queue.
    """
    seconds = bench.size(10, 5)

    def ends() -> float:
        return time.monotonic() + seconds

    async with _server("empty") as empty:
        end = ends()
        nothing = request("GET", "/")
        clients: list[Exchange] = [lambda _: nothing if time.monotonic() < end else None] * CLIENTS
        control = await drive(empty.port, clients, pause=REST)
    async with _server("sqlite", str(folder / "crowd.db")) as server:
        end = ends()
        tally = await drive(server.port, [_client(f"user-{number}", end) for number in range(CLIENTS)], pause=REST)
        cost = _cpu_seconds(server.process.pid) / tally.done * 1e3
    lag = {name: round(value, 2) for name, value in server.lag.items()}
    return [
        at_least(
            f"operations of {CLIENTS} clients that rest {REST} s / the same at an empty route",
            tally.done / control.done,
            LEAST_OPERATIONS,
            "x",
            operations=tally.done,
            seconds=seconds,
        ),
        at_most(f"failed operations of {CLIENTS} clients", tally.failed, 0),
        at_most(
            f"lag of the loop under {CLIENTS} clients, p99 / an empty route's and {LAG_OPERATIONS} operations",
            lag["lag_p99_ms"] / (empty.lag["lag_p99_ms"] + LAG_OPERATIONS * cost),
            1.0,
            "x",
            operation_ms=round(cost, 3),
            empty_route_ms={name: round(value, 2) for name, value in empty.lag.items()},
            **lag,
        ),
    ]


async def _loaded(provider: str, arguments: list[str]) -> str:
    """Fill a store for one user, and return the id of a memory."""
    async with store(provider, *arguments) as memory:
        texts = Corpus(3).texts(MEMORIES)
        await memory.add_many([{"content": text, "user_id": USER} for text in texts])
        return (await memory.add("tea at noon, and bread", user_id=USER)).id


def _cpu_seconds(pid: int) -> float:
    """Return the CPU that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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


async def _requests(port: int, wanted: bytes, seconds: float) -> int:
    """Return how many requests the server answers on so many connections in about so many seconds."""
    end = time.monotonic() + seconds
    tally = await drive(port, [lambda _: wanted if time.monotonic() < end else None] * CONNECTIONS)
    if tally.failed:
        raise RuntimeError(f"{tally.failed} of {tally.failed + tally.done} requests failed")
    return tally.done


def _get(id: str) -> bytes:
    return request("GET", f"/memories/{id}?user_id={USER}")


def _id(response: bytes) -> str:
    record: dict[str, Any] = json.loads(response.partition(b"\r\n\r\n")[2])
    found: str = record["id"]
    return found


@contextlib.asynccontextmanager
async def _server(kind: str, *arguments: str) -> AsyncIterator[Server]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.http_process",
        kind,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        server = Server(int(await process.stdout.readline()), process)
        yield server
        process.send_signal(signal.SIGTERM)
        server.lag.update(json.loads(await process.stdout.readline()))
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.asynccontextmanager
async def _serving(file: str, workers: int) -> AsyncIterator[int]:
    """Run `openproto serve` with so many workers and yield its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from openproto.cli import main; main()",
        "serve", "--provider", "sqlite", "--path", file, "-o", "embedder=none",
        "--port", str(port), "--workers", str(workers),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        for _ in range(300):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.1)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()
