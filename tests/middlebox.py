"""A middlebox between a client and a server on real sockets, which answers a request twice where a test asks for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from anyio.from_thread import start_blocking_portal
from raw_server import RawServer, Request

Fault: TypeAlias = Literal["", "twice", "twice later"]


class Middlebox(RawServer):
    """Forwards to the server at `upstream`; `fault` is done to every answer while it is set.

    "twice" sends an answer two times in one piece, "twice later" with a pause between, after which `repeated` is set.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(self.forward, capabilities=b"", key_check=self.forward)
        self._upstream = urlsplit(upstream)
        self.fault: Fault = ""
        self.repeated = threading.Event()

    async def forward(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        theirs, ours = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        with contextlib.closing(ours):
            headers = b"".join(b"%s: %s\r\n" % (name.encode(), value) for name, value in request.headers.items())
            ours.write(f"{request.method} {request.target} HTTP/1.1\r\n".encode() + headers + b"\r\n" + request.body)
            head = await theirs.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            answer = head + await theirs.readexactly(int(length or 0))
        if self.fault == "twice later":
            writer.write(answer)
            await asyncio.sleep(0.02)
        if self.fault:
            asyncio.get_running_loop().call_later(0.02, self.repeated.set)
        return answer * 2 if self.fault == "twice" else answer


@contextlib.contextmanager
def middlebox(upstream: str) -> Iterator[Middlebox]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(Middlebox(upstream)) as box:
        yield box
