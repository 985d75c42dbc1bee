"""A server in a separate process: `python -m benchmarks.http_process empty|trivial|sqlite FILE|postgres URL SCHEMA`.

Prints its port once it listens, and at its end, on SIGTERM, how late its event loop let a sampler run.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import time

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.harness import percentile
from benchmarks.overhead import Trivial
from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app
from openproto.server.log import log_config
from openproto.server.running import uvicorn_options

TICK = 0.01


def main() -> None:
    """Serve until SIGTERM. Every kind logs its requests, ours as `openproto serve` does, all to nowhere."""
    lags: list[float] = []
    kind, app = sys.argv[1], _app(*sys.argv[1:])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sys.stdout, told = open(os.devnull, "w"), sys.stdout  # noqa: SIM115 - lives as long as the process
        sys.stderr = sys.stdout
        if kind == "empty":
            config = uvicorn.Config(_sampled(app, lags), loop="uvloop", http="httptools")
        else:
            settings = ServerSettings(max_connections_per_address=512)
            config = uvicorn.Config(_sampled(app, lags), log_config=log_config(settings), **uvicorn_options(settings))
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        uvicorn.Server(config).run([listener])
    found = {"lag_p50_ms": percentile(lags, 0.5) * 1e3, "lag_p99_ms": percentile(lags, 0.99) * 1e3}
    print(json.dumps({**found, "lag_max_ms": max(lags) * 1e3, "samples": len(lags)}), file=told, flush=True)


def _app(kind: str, *arguments: str) -> ASGIApp:
    return _empty() if kind == "empty" else create_app(store(kind, *arguments), ServerSettings())


def store(kind: str, *arguments: str) -> AsyncMemory:
    """Return a client of the named kind."""
    if kind == "trivial":
        return AsyncMemory(Trivial())
    if kind == "sqlite":
        return AsyncMemory("sqlite", path=arguments[0], embedder="none")
    url, schema = arguments
    return AsyncMemory("postgres", url=url, schema=schema, embedder="none")


def _empty() -> FastAPI:
    app = FastAPI()

    @app.get("/")
    async def nothing() -> dict[str, str]:
        return {}

    return app


def _sampled(app: ASGIApp, lags: list[float]) -> ASGIApp:
    """Start the sampler with the app, next to its requests."""
    sampler: asyncio.Task[None] | None = None

    async def sample() -> None:
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            lags.append(time.perf_counter() - due)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sampler
        if scope["type"] == "lifespan":
            sampler = asyncio.create_task(sample())
        await app(scope, receive, send)

    return serve


if __name__ == "__main__":
    logging.raiseExceptions = False
    main()
