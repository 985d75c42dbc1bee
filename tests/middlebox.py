"""A middlebox between a client and a server on real sockets, which answers a request twice where a test asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal

Fault: TypeAlias = Literal["", "twice", "twice later"]


class Middlebox:
    """Forwards to the server at `upstream`; `fault` is done to every answer while it is set.

    "twice" sends an answer two times in one piece, "twice later" with a pause between, after which `repeated` is set.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self.fault: Fault = ""
        self.connections = 0
        self.repeated = threading.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        theirs, ours = await asyncio.open_connection(*self._upstream)
        try:
            while request := await _message(reader):
                ours.write(request)
                if not (answer := await _message(theirs)):
                    return

                writer.write(answer * 2 if self.fault == "twice" else answer)
                if self.fault == "twice later":
                    await writer.drain()
                    await asyncio.sleep(0.02)
                    writer.write(answer)
                await writer.drain()
                if self.fault.startswith("twice"):
                    await asyncio.sleep(0.02)
                    self.repeated.set()
        except OSError:
            pass
        finally:
            ours.close()
            writer.close()
            with contextlib.suppress(OSError):
                await asyncio.gather(ours.wait_closed(), writer.wait_closed())


async def _message(reader: asyncio.StreamReader) -> bytes:
    """Return a whole message of HTTP/1.1, or nothing where the connection has ended."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""
    length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    assert length or b"transfer-encoding" not in head.lower(), "the servers of these tests say how long an answer is"
    return head + await reader.readexactly(int(length[1]) if length else 0)


@contextlib.contextmanager
def middlebox(upstream: str) -> Iterator[Middlebox]:
    box = Middlebox(upstream)
    with start_blocking_portal() as portal:
        server = portal.call(asyncio.start_server, box.serve, "127.0.0.1", 0)
        box.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield box
        portal.call(server.close)
