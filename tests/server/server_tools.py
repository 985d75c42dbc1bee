"""What the tests of the server share: a scripted provider, requests byte by byte, servers to start."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import mkstemp
from typing import Any, TypeAlias

import httpx
from openproto_adapters.sqlite import Sqlite

from openproto import AsyncMemory
from openproto.models import Cancellation, MemoryRecord
from openproto.provider import Provider
from openproto.requests import RecordRef
from openproto.server import ServerSettings, create_app

LONG = 30.0
COMMAND = [sys.executable, "-W", "error", "-m", "openproto.cli", "serve"]

Serve: TypeAlias = Callable[..., httpx.Client]
Start: TypeAlias = "Callable[..., Process]"


def sqlite_app(path: object, settings: ServerSettings) -> Any:
    """Return the app over a file, which is not waited for at every commit; memories are found by words alone."""
    return create_app(AsyncMemory(Sqlite(str(path), embedder="none", synchronous="normal")), settings)


class Scripted(Provider):
    """A backend that raises what it is given, or hangs until it is cancelled, and says which happened."""

    name = "scripted"
    cancellation: Cancellation = "native"

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.asked = threading.Event()
        self.cancelled = threading.Event()

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.asked.set()
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
        raise asyncio.CancelledError

    async def health(self) -> None:
        await self.get(RecordRef(id="any"))


def scripted_app(error: BaseException | None = None) -> tuple[Scripted, Any]:
    provider = Scripted(error)
    return provider, create_app(AsyncMemory(provider, retries=0, timeout=2 * LONG), ServerSettings())


def connect(url: str | httpx.URL, sent: bytes = b"") -> socket.socket:
    address = httpx.URL(url)
    connection = socket.create_connection((address.host, address.port or 80), timeout=LONG)
    connection.sendall(sent)
    return connection


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(65536):
        found += chunk
    return found


def error_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a response is a proper error, and return what its envelope holds."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert error["code"] == code
    assert error["message"]
    assert error["request_id"] == response.headers["x-request-id"]
    assert response.headers["omp-version"] == "0.1"
    assert set(error) <= {"code", "message", "type", "provider", "request_id", "x-openproto"}
    return error


class Process:
    def __init__(self, *arguments: str, command: list[str] = COMMAND, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
        log, self._log = mkstemp()
        self.process = subprocess.Popen(
            [*command, "--port", "0", *arguments],
            env={**kept, "OPENPROTO_EMBEDDER": "none", **environment},
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        os.close(log)
        self._ends = False
        while "\n" not in self._logged() and self.process.poll() is None:
            time.sleep(0.01)
        self.first_line = self._logged().partition("\n")[0]
        found = re.search(r"http://\S+?:\d+", self.first_line)
        if found is None:
            raise AssertionError(self.first_line + self.stop())
        self.url = found[0]

    def said(self) -> str:
        """Return what the server has logged by now, after its first line."""
        return self._logged().partition("\n")[2]

    def terminate(self, sent: signal.Signals = signal.SIGTERM) -> None:
        self._ends = True
        self.process.send_signal(sent)

    def stop(self) -> str:
        """End the server in order, unless it is ending already; return what it logged after its first line."""
        if not self._ends:
            self.terminate()
        self.process.wait(LONG)
        return self.said()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        os.unlink(self._log)

    def _logged(self) -> str:
        return Path(self._log).read_text()
