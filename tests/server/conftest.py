"""Servers under real uvicorn, on real sockets: over SQLite in a thread, over a private PostgreSQL, in processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import lasting
import pytest
from server_tools import LONG, Process, Serve, Start, sqlite_app

from openproto.server import ServerSettings, running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OPENPROTO_"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(app: Any, settings: ServerSettings | None = None) -> httpx.Client:
            url = stack.enter_context(running(app, settings))
            return stack.enter_context(httpx.Client(base_url=url, timeout=LONG))

        yield start


@pytest.fixture
def serve_file(serve: Serve, tmp_path: Path) -> Serve:
    """Serve the file of the test with settings, and return a client of the server."""

    def start(**settings: Any) -> httpx.Client:
        return serve(sqlite_app(tmp_path / "memory.db", wanted := ServerSettings(**settings)), wanted)

    return start


@pytest.fixture(scope="session")
def shared() -> Iterator[httpx.Client]:
    """One server for all tests that want nothing special of it; in memory, since a busy disk may take its time."""
    app = sqlite_app(lasting.folder("server") / "memory.db", ServerSettings())
    with running(app) as url, httpx.Client(base_url=url, timeout=LONG) as client:
        yield client


@pytest.fixture
def client(shared: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the shared server; what ada and eve have there is removed afterwards."""
    yield shared
    for user_id in ("ada", "eve"):
        assert shared.delete("/memories", params={"user_id": user_id}).is_success


@pytest.fixture
def start() -> Iterator[Start]:
    """Start `openproto serve`, with arguments and an environment; what is left is killed."""
    started: list[Process] = []

    def run(*arguments: str, **options: Any) -> Process:
        started.append(Process(*arguments, **options))
        return started[-1]

    yield run
    for process in started:
        process.kill()
