"""Servers under real uvicorn, on real sockets: over SQLite in a thread, over a private PostgreSQL, in processes."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import lasting
import pytest
from server_tools import LONG, Process, Serve, sqlite_app

from openproto.server import ServerSettings, running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's own settings."""
    for name in os.environ:
        if name.startswith("OPENPROTO_"):
            monkeypatch.delenv(name)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve an app until the end of the test and return a client of it."""
    with contextlib.ExitStack() as stack:

        def start(app: Any, settings: ServerSettings | None = None, **headers: str) -> httpx.Client:
            url = stack.enter_context(running(app, settings))
            return stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=LONG))

        yield start


@pytest.fixture(scope="session")
def shared() -> Iterator[httpx.Client]:
    """One server for all tests that want nothing special of it; in memory, since a busy disk may take its time."""
    app = sqlite_app(lasting.folder("server") / "memory.db")
    with running(app) as url, httpx.Client(base_url=url, timeout=LONG) as client:
        yield client


@pytest.fixture
def client(shared: httpx.Client) -> Iterator[httpx.Client]:
    """A client of the shared server; what ada and eve have there is removed afterwards."""
    yield shared
    for user_id in ("ada", "eve"):
        assert shared.delete("/memories", params={"user_id": user_id}).is_success


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Start `openproto serve`, with arguments and an environment; what is left is killed."""
    started: list[Process] = []

    def run(*arguments: str, **options: Any) -> Process:
        started.append(Process(*arguments, **options))
        return started[-1]

    yield run
    for process in started:
        process.kill()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> str:
    """The DSN of a PostgreSQL database that only this module uses."""
    return lasting.postgres_url(request.path.stem)


@pytest.fixture
def schema() -> str:
    """The name of a new schema, which goes with the server."""
    return f"t_{uuid.uuid4().hex[:12]}"
