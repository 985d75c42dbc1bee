"""The thread, the loop, and the listening socket of an emulator.

A small HTTP/1.1 server of our own shows what ASGI servers hide: clients that leave, and answers that are broken.
"""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from openproto_conformance.emulators.connection import App, Connection


class Server:
    """Serves an app in a thread and a loop of its own."""

    def __init__(self, name: str, app: App) -> None:
        self._name = name
        self._app = app
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._failure: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._port: int | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    @property
    def port(self) -> int:
        """The port it listens on; a RuntimeError unless it does."""
        if self._port is None:
            raise RuntimeError(f"{self._name} is not running")
        return self._port

    def start(self, port: int) -> None:
        """Listen; return when connections are accepted."""
        if self._thread is not None:
            raise RuntimeError(f"{self._name} is running already")
        self._started.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(port)), name=self._name, daemon=True)
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._thread.join()
            self._thread = None
            raise failure

    def stop(self) -> None:
        """Cut every connection and end the thread."""
        if self._thread is None or self._loop is None or self._stop is None:
            return
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._thread = self._port = None

    async def _main(self, port: int) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=1024)
        except Exception as error:  # it belongs to `start`, in the other thread
            self._failure = error
            self._started.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._app.faults.serve_on(self._loop)
        self._started.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._app.faults.serve_on(None)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task; this tells the type checkers
        self._connections.add(task)
        self._app.counters.connected()
        try:
            await Connection(self._app, reader, writer).serve()
        except asyncio.CancelledError:
            pass  # the server stops, and nobody awaits this task
        finally:
            writer.transport.abort()
            self._app.counters.disconnected()
            self._connections.discard(task)
