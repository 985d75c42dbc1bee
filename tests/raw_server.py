"""An HTTP server by hand, so that a test decides about every byte: drips, truncation, resets, and who is connected."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, Self, TypeAlias

from openproto_adapters.passthrough import wire

from openproto import AsyncMemory

VERBS = ["add", "search", "context", "get", "list", "update", "delete", "audit", "capabilities"]
CAPABILITIES: dict[str, Any] = {
    "omp_version": "0.1",
    "provider": "raw",
    "verbs": VERBS,
    "x-openproto": {"support": {"key": "none", "scopes": "native"}},
}
NO_RECORD = wire.no_record().path
RECORD: dict[str, Any] = {"id": "1", "content": "tea", "user_id": "ann", "created_at": "2026-01-31T12:00:00Z"}


class Request(NamedTuple):
    """A request as it arrived; header names in lower case, values as the bytes they were."""

    method: str
    target: str
    headers: dict[str, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def route(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"


Handler: TypeAlias = Callable[[Request, asyncio.StreamWriter], Awaitable[bytes | None]]


class RawServer:
    """Answers with what `handle(request, writer)` returns; None ends the connection. What a client asks for when it
    opens is served here, unless `capabilities` is empty."""

    def __init__(
        self, handle: Handler, *, capabilities: bytes | None = None, key_check: Handler | None = None, tls: Any = None
    ) -> None:
        self._handle = handle
        self.capabilities = answer(CAPABILITIES) if capabilities is None else capabilities
        self._key_check = key_check or always(refusal("not_found", 404))
        self._tls = tls
        self._serving: set[asyncio.Task[None]] = set()
        self.requests: list[Request] = []
        self.connections = self.open = self.most = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=2**22)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    def client(self, **options: Any) -> AsyncMemory:
        return AsyncMemory("passthrough", base_url=self.url, **{"timeout": 10, "retries": 0, **options})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.connections += 1
        self.open += 1
        self.most = max(self.most, self.open)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            self.open -= 1
            self._serving.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        method, target, _ = first.decode("ascii").split(" ")
        headers = {name.decode().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target, headers, body)
        if request.route == "GET /capabilities" and self.capabilities:
            reply: bytes | None = self.capabilities
        elif request.target == NO_RECORD:
            reply = await self._key_check(request, writer)
        else:
            self.requests.append(request)
            reply = await self._while_connected(reader, self._handle(request, writer))
        if reply is None:
            return False
        writer.write(reply)
        await writer.drain()
        return True

    async def _while_connected(self, reader: asyncio.StreamReader, handling: Awaitable[bytes | None]) -> bytes | None:
        """Stop handling when the client leaves; without pipelining, whatever can be read meanwhile is the end."""
        work = asyncio.ensure_future(handling)
        gone = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            return await work if work.done() else None
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait({work, gone})


def answer(value: object, status: int = 200, **headers: object) -> bytes:
    """Return a response with `value` as JSON, or bytes as they are; `x_y=` is the header x-y."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    named = {"content_type": "application/json", "content_length": len(body), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def refusal(code: str, status: int, message: str = "no", **headers: object) -> bytes:
    return answer({"error": {"code": code, "message": message, "type": "invalid"}}, status, **headers)


def always(reply: bytes) -> Handler:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes:
        return reply

    return handle


async def never(request: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()
