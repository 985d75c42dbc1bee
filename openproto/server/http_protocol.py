"""uvicorn's HTTP protocol, with bounds and deadlines, and with the envelope for what never reaches the app.

uvicorn gathers heads and trailers without end, waits for ever for the rest of a request, and loses the body of one that
offers an upgrade, as Java's client does by default (`Upgrade: h2c`). Here a request's head, trailers, and chunk
framing share one bound, each stage has a deadline, and an offered upgrade is left alone, as HTTP allows.
"""

from __future__ import annotations

import asyncio
import math
from http import HTTPMethod, HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from openproto import InvalidRequestError, OpenProtoError, ProviderUnavailableError
from openproto.models import OMP_VERSION
from openproto.provider import new_request_id
from openproto.server.connections import MAX_REFUSED, SLOW, Connections
from openproto.server.disconnect import LATE_BODY
from openproto.server.http_errors import HeadTooLargeError, RequestTimeoutError

if TYPE_CHECKING:
    from uvicorn import Config
    from uvicorn._types import ASGI3Application
    from uvicorn.server import ServerState

_PIECE = 2**14  # bytes parsed at a time; a head that begins in a piece is counted from the next one on
_CHUNK_ALLOWANCE = 16  # bytes of framing that come free with each chunk, as in Go
_LINGER_SECONDS = 2.0  # for a client to read its refusal, or to finish a body that was answered early
_BODY_GRACE_SECONDS = 1.0  # a body that takes longer gives way to new connections, when there are too many
_UPGRADE_TOKENS = frozenset({b"upgrade", b"http2-settings"})


class HttpProtocol(HttpToolsProtocol):
    """One connection. At every moment it has a deadline, except while the app works on a request that arrived whole."""

    def __init__(
        self,
        connections: Connections,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._all = connections
        self._settings = connections.settings
        self._overhead = 0  # bytes of this request outside of its body
        self._in_head = False
        self._in_body = False
        self._has_served = False
        self._refused = False
        self._at_work: RequestResponseCycle | None = None  # `cycle` may be of a request that waits behind it
        self._unsent = math.inf
        self._stuck_after = math.inf
        self._deadline = math.inf

    # --- what Connections asks ---

    def precedence(self, now: float) -> tuple[int, float] | None:
        """Return when this connection gives way to a new one (the lowest goes first); None if it does not."""
        if self._in_body:
            since = self._deadline - self._settings.body_timeout
            return (2, self._deadline) if now - since > _BODY_GRACE_SECONDS else None
        if self._is_running:
            return None
        return int(self._has_served), self._deadline

    def give_way(self) -> None:
        """Close for the sake of a new connection."""
        if self._has_served and not (self._in_head or self._in_body):
            self._close()  # the client may be about to send: a response here would pass for that request's
        else:
            self._refuse(too_many_connections())

    def check(self, now: float) -> None:
        """End the connection, or this stage of it, if its deadline is over."""
        if self.flow.write_paused:
            self._check_progress(now)
        if now < self._deadline:
            return
        if self.transport.is_closing() or self._refused:
            self.transport.abort()
        elif self._is_running:
            # The app answers what it makes of an incomplete body; then the connection closes.
            self.cycle.scope[LATE_BODY] = True  # type: ignore[literal-required]
            self.cycle.keep_alive = False
            self.cycle.more_body = False
            self.cycle.message_event.set()
            self._deadline = math.inf
            self._all.note(SLOW)
        elif self._in_head:
            self._all.note(SLOW)
            self._refuse(
                RequestTimeoutError(f"no complete head within {self._settings.head_timeout:g} s; send it faster")
            )
        else:
            self._close()

    def _check_progress(self, now: float) -> None:
        """Cut off a client that reads nothing of its response."""
        unsent = self.transport.get_write_buffer_size()
        if unsent < self._unsent:
            self._unsent, self._stuck_after = unsent, now + self._settings.idle_timeout
        elif now > self._stuck_after:
            self._all.note(SLOW)
            self.transport.abort()

    # --- what the transport says ---

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn narrows it so
        """Begin, or refuse at once."""
        super().connection_made(transport)
        if self._all.admit(self, self.client[0] if self.client else ""):
            self._wait(self._settings.head_timeout)
        else:
            self._refuse(too_many_connections())

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell the request at work, where uvicorn tells the newest one."""
        self._all.remove(self)
        super().connection_lost(exc)
        if self._at_work is not None and not self._at_work.response_complete:
            self._at_work.disconnected = True
            self._at_work.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        for start in range(0, len(data), _PIECE):
            if self._refused:
                self._discard(len(data) - start)
                return
            if self.transport.is_closing():
                return
            piece = data[start : start + _PIECE] if len(data) > _PIECE else data
            self._overhead += len(piece)
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserError:
                self._refuse(InvalidRequestError("this is not a valid HTTP/1.1 request"))
            except httptools.HttpParserUpgrade as offer:
                self._continue_without_upgrade(data[start + offer.args[0] :])
                return
            else:
                self._overhead = max(0, self._overhead)  # what was free for one chunk is not for the next
                if self._overhead > self._settings.max_head_bytes:
                    self._refuse(HeadTooLargeError(self._settings.max_head_bytes))

    def pause_writing(self) -> None:
        """Watch from now on whether the client reads."""
        super().pause_writing()
        self._unsent, self._stuck_after = math.inf, math.inf

    # --- what the parser says ---

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._in_head = True
        if not self._is_running:
            self._wait(self._settings.head_timeout)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are dropped, because the app has the headers already and trusts them."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request to the app."""
        self._in_head = False
        self._in_body = True
        running = self._is_running
        super().on_headers_complete()
        if not running:
            self._wait(self._settings.body_timeout)

    def on_chunk_header(self) -> None:
        """Begin a chunk."""
        self._overhead -= _CHUNK_ALLOWANCE

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._overhead -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is complete."""
        super().on_message_complete()
        self._overhead = 0
        self._in_body = False
        if not self.pipeline:
            self._wait(math.inf if self._is_running else self._settings.idle_timeout)

    # --- what the app says ---

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for it."""
        self.server_state.total_requests += 1
        self._has_served = True
        if self.transport.is_closing():
            self._wait(self._settings.idle_timeout)  # to send what is left
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            self._wait(self._settings.body_timeout if cycle.more_body else math.inf)
        elif self._in_head:
            self._wait(self._settings.head_timeout)
        else:
            self._wait(_LINGER_SECONDS if self._in_body else self._settings.idle_timeout)

    @property
    def _is_running(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, seconds: float) -> None:
        self._deadline = self.loop.time() + seconds

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._at_work = cycle
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        """Hold back a request that offers an upgrade: its body is not parsed, so it is read once more without."""
        return True

    def _continue_without_upgrade(self, rest: bytes) -> None:
        if self.scope["method"] == HTTPMethod.CONNECT:
            self._refuse(InvalidRequestError("this server is not a proxy"))
            return
        headers = b"".join(b"%b: %b\r\n" % pair for pair in _without_offer(self.headers))
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self.scope["method"].encode(), self.url, headers)
        self.parser = httptools.HttpRequestParser(self)
        self._overhead = 0
        self.data_received(head + rest)

    def _close(self) -> None:
        self.transport.close()
        self._wait(_LINGER_SECONDS)

    def _refuse(self, error: OpenProtoError) -> None:
        """Answer the current request with the error and hang up, but not before the client had time to read it."""
        self._refused = True
        self._overhead = 0
        if self._is_running:
            if not self._in_body:
                self.cycle.keep_alive = False  # an earlier request is at work: its response ends the connection
                return
            if self._at_work is not None and self.cycle is not self._at_work:
                # The request that is refused waits behind others. A response now would pass for one of theirs, so it
                # gets none: the last of theirs ends the connection.
                self.pipeline.popleft()
                self.cycle = self.pipeline[0][0] if self.pipeline else self._at_work
                self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.abort()
                return
        self.transport.write(_refusal(error))
        if len(self._all.refused) >= MAX_REFUSED:
            self._close()
            return
        self._all.refused.add(self)
        self._wait(_LINGER_SECONDS)
        self.transport.write_eof()

    def _discard(self, size: int) -> None:
        """Drop what comes after a refusal: closing at once would reset the connection before the client has read it."""
        self._overhead += size
        if self._overhead > self._settings.max_head_bytes:
            self.transport.abort()


def too_many_connections() -> OpenProtoError:
    """Return the error of a connection for which there is no place."""
    return ProviderUnavailableError("the server has as many connections as it takes; try again soon", retry_after=1)


def _refusal(error: OpenProtoError) -> bytes:
    error.request_id = new_request_id()
    status = HTTPStatus(error.http_status)
    body = to_json(error.to_envelope())
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "content-type: application/json",
        f"content-length: {len(body)}",
        "connection: close",
        f"omp-version: {OMP_VERSION}",
        f"x-request-id: {error.request_id}",
    ]
    if error.retry_after is not None:
        lines.append(f"retry-after: {error.retry_after:g}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def _without_offer(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers without the upgrade; what else `Connection` says, such as `close`, stays."""
    found = []
    for name, value in headers:
        if name == b"connection":
            kept = [token for token in value.split(b",") if token.strip().lower() not in _UPGRADE_TOKENS]
            if kept:
                found.append((name, b",".join(kept)))
        elif name not in _UPGRADE_TOKENS:
            found.append((name, value))
    return found
