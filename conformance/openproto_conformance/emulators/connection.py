"""One connection of an emulator: request after request, with pauses and faults.

h11 speaks the protocol. While a request waits, the connection is read, so that a client that leaves is seen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, NoReturn, Protocol

import h11

from openproto_conformance.emulators.counters import Counters, Exchange
from openproto_conformance.emulators.faults import (
    CloseConnection,
    Drip,
    Fault,
    Faults,
    Hang,
    HtmlWith200,
    Latency,
    ResetConnection,
    Rule,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.messages import Answer, Request

_READ_SIZE = 65_536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s: close() sends RST
_HTML = b"<!doctype html><title>Sign in</title><p>Please sign in to this network."


class App(Protocol):
    """What the server serves."""

    faults: Faults
    counters: Counters
    breaks_off_after: ClassVar[frozenset[int]]

    def respond(self, request: Request) -> Answer:
        """Answer a request."""
        ...

    def error(self, status: int, message: str) -> Answer:
        """Return an error in the app's own shape."""
        ...

    def headers(self) -> Mapping[str, str]:
        """Return the headers of every answer."""
        ...


class _ClientLeft(Exception):
    """The client closed the connection, or reset it."""


class _Cut(Exception):
    """A fault ends the connection here."""


class Connection:
    """One connection, request after request."""

    def __init__(self, app: App, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._app = app
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        self._read: asyncio.Task[bytes] | None = None
        self._serving: Request | None = None

    async def serve(self) -> None:
        """Serve until the client leaves, or the connection is to end."""
        try:
            while (request := await self._next_request()) is not None:
                self._app.counters.began()
                await self._serve(request)
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    await self._flush_and_close()
                    return
                self._http.start_next_cycle()
        except _ClientLeft:
            pass
        except _Cut:
            await self._flush_and_close()
        except h11.RemoteProtocolError:
            with contextlib.suppress(_ClientLeft):
                await self._say(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            await self._flush_and_close()
        finally:
            if self._read is not None:
                self._read.cancel()

    async def _next_request(self) -> Request | None:
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._received())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
                return Request.arrived(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body))
            else:
                return None

    async def _serve(self, request: Request) -> None:
        self._serving = request
        try:
            await self._answer(request, self._app.faults.take(request.method, request.path))
        except _ClientLeft:
            self._note_end(None, left=True)
            raise
        finally:
            self._note_end(None)

    def _note_end(self, status: int | None, *, left: bool = False) -> None:
        """Count the request as ended, once; before the last bytes are sent, so that whoever has them can rely on it."""
        if self._serving is not None:
            self._app.counters.ended(Exchange(self._serving.method, self._serving.path, status), left=left)
            self._serving = None

    async def _answer(self, request: Request, rule: Rule | None) -> None:
        fault = rule.fault if rule is not None else None
        if rule is not None and isinstance(fault, Hang):
            await self._pause(rule.lifted.wait())
        answer = _instead(fault, self._app)
        if answer is None and getattr(fault, "applied", True):
            answer = self._app.respond(request)
        if isinstance(fault, Latency):
            await self._pause(asyncio.sleep(fault.seconds))
        if isinstance(fault, ResetConnection):
            self._reset()
        if answer is None or (isinstance(fault, CloseConnection) and not fault.mid_body):
            raise _Cut
        await self._send(answer, fault)

    async def _send(self, answer: Answer, fault: Fault | None) -> None:
        body, kind = _encoded(answer)
        if isinstance(fault, TruncatedJson):
            body = body[: len(body) // 2]
        headers = {**self._app.headers(), "content-type": kind, "content-length": str(len(body)), **answer.headers}
        if answer.status == 204:
            del headers["content-length"], headers["content-type"]
        pieces = [self._http.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b""]
        if isinstance(fault, CloseConnection):
            await self._say(pieces[0] + body[: len(body) // 2])
            raise _Cut
        size = fault.size if isinstance(fault, Drip) else len(body)
        pieces += [self._http.send(h11.Data(body[at : at + size])) or b"" for at in range(0, len(body), size or 1)]
        self._http.send(h11.EndOfMessage())
        if isinstance(fault, Drip):
            for piece in pieces[:-1]:
                await self._say(piece)
                await self._pause(asyncio.sleep(fault.seconds))
            del pieces[:-1]
        self._note_end(answer.status)
        await self._say(b"".join(pieces))
        if answer.status in self._app.breaks_off_after:
            await self._received()
            self._reset()

    def _reset(self) -> NoReturn:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise _Cut

    async def _say(self, data: bytes) -> None:
        self._writer.write(data)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise _ClientLeft from error

    async def _flush_and_close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def _reading(self) -> asyncio.Task[bytes]:
        """Return the one read that is under way; a pause may begin it and the next request end it."""
        if self._read is None:
            self._read = asyncio.ensure_future(self._reader.read(_READ_SIZE))
            # A reset that nobody waits for any more is no news.
            self._read.add_done_callback(lambda read: read.cancelled() or read.exception())
        return self._read

    async def _received(self) -> bytes:
        reading = self._reading()
        await asyncio.wait({reading})
        self._read = None
        try:
            return reading.result()
        except ConnectionError as error:
            raise _ClientLeft from error

    async def _pause(self, until: Coroutine[Any, Any, Any]) -> None:
        """Wait for `until`, but not for a client that has left."""
        waiting = asyncio.ensure_future(until)
        try:
            while not waiting.done():
                await asyncio.wait({waiting, self._reading()}, return_when=asyncio.FIRST_COMPLETED)
                if self._reading().done():
                    if not (data := await self._received()):
                        raise _ClientLeft
                    self._http.receive_data(data)
        finally:
            waiting.cancel()


def _instead(fault: Fault | None, app: App) -> Answer | None:
    """Return the answer of a fault that answers in the vendor's place."""
    if isinstance(fault, HtmlWith200):
        return Answer(200, _HTML, {"content-type": "text/html; charset=utf-8"})
    if isinstance(fault, Status):
        body = app.error(fault.status, "as the fault wants it").body if fault.body is None else fault.body
        retry = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
        return Answer(fault.status, body, {**retry, **fault.headers})
    return None


def _encoded(answer: Answer) -> tuple[bytes, str]:
    if isinstance(answer.body, bytes):
        return answer.body, "application/octet-stream"
    return b"" if answer.body is None else json.dumps(answer.body).encode(), "application/json"
