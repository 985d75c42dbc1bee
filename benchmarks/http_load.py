"""A load generator that costs less than any server: it writes prepared bytes and reads no more than it must."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)

Exchange = Callable[[bytes], bytes | None]
"""Gets the response to the last request (empty at first) and returns the next request, or None to stop."""


@dataclass(slots=True)
class Tally:
    """What a run of connections did."""

    done: int = 0
    failed: int = 0


class Connection(asyncio.Protocol):
    """One client: a request, its response, the next request."""

    def __init__(self, exchange: Exchange, tally: Tally, pause: float) -> None:
        self._exchange = exchange
        self._pause = pause
        self._tally = tally
        self._buffer = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name
        self._next(b"")

    def data_received(self, data: bytes) -> None:
        """Count a response once it is whole."""
        buffer = self._buffer = self._buffer + data if self._buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(buffer, 0, head)
        if len(buffer) < head + 4 + (int(length[1]) if length else 0):
            return
        self._buffer = b""
        if buffer[9:10] == b"2":
            self._tally.done += 1
        else:
            self._tally.failed += 1
        if self._pause:
            asyncio.get_running_loop().call_later(random.uniform(0, 2 * self._pause), self._next, buffer)
        else:
            self._next(buffer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a server that hangs up in the middle has failed."""
        if not self.ended.done():
            self._tally.failed += 1
            self.ended.set_result(None)

    def _next(self, response: bytes) -> None:
        request = self._exchange(response)
        if request is not None:
            self._transport.write(request)
            return
        self.ended.set_result(None)
        self._transport.close()


async def drive(port: int, exchanges: list[Exchange], *, pause: float = 0.0) -> Tally:
    """Run a connection for each exchange until all have stopped; each rests `pause` seconds, on average, in between."""
    tally = Tally()
    loop = asyncio.get_running_loop()
    opened = [
        await loop.create_connection(lambda each=each: Connection(each, tally, pause), "127.0.0.1", port)  # type: ignore[misc]
        for each in exchanges
    ]
    await asyncio.gather(*(connection.ended for _, connection in opened))
    return tally


def request(method: str, target: str, body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body
