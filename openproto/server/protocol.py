"""uvicorn's HTTP protocol, with the envelope for what never reaches the app, and with what uvicorn leaves open.

uvicorn gathers headers without end, and loses the body of a request that offers an upgrade, as Java's client does by
default (`Upgrade: h2c`). Here headers have a bound, and an offered upgrade is left alone, as HTTP allows.
"""

from __future__ import annotations

from http import HTTPMethod

import httptools
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openproto.errors import InvalidRequestError
from openproto.ids import unique_token
from openproto.models import OMP_VERSION

MAX_HEAD = 2**16
"""Bytes of a request line and headers that may arrive after the first piece of them."""

_OFFER = frozenset({b"connection", b"upgrade", b"http2-settings"})


class EnvelopeProtocol(HttpToolsProtocol):
    """Answers bytes that are no request as any other bad request is answered."""

    _head: int | None = None  # bytes of the head so far; None outside of one

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._head is not None:
            self._head += len(data)
        try:
            self._unset_keepalive_if_required()
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse("this is no valid HTTP/1.1 request")
        except httptools.HttpParserUpgrade as offer:
            self._go_on_without_upgrade(data[offer.args[0] :])
        else:
            if self._head is not None and self._head > MAX_HEAD:
                self._refuse(f"the path and the headers exceed {MAX_HEAD} bytes")

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._head = 0

    def on_headers_complete(self) -> None:
        """Hand the request to the app."""
        self._head = None
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        """Hold back a request that offers an upgrade: its body is not parsed, so it is read once more without."""
        return True

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        if self.scope["method"] == HTTPMethod.CONNECT:
            self._refuse("this server is no proxy")
            return
        headers = [b"%b: %b\r\n" % (name, value) for name, value in self.headers if name not in _OFFER]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self.scope["method"].encode(), self.url, b"".join(headers))
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _refuse(self, text: str) -> None:
        """Send the answer and hang up."""
        error = InvalidRequestError(text, request_id=unique_token(64))
        body = to_json(error.to_envelope())
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            "connection: close\r\n"
            f"omp-version: {OMP_VERSION}\r\n"
            f"x-request-id: {error.request_id}\r\n"
            "\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
