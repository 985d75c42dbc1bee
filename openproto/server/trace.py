"""What every request and response has: an id, the protocol's version, and one line in the access log."""

from __future__ import annotations

import logging
import re
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openproto.models import OMP_VERSION
from openproto.provider import new_request_id
from openproto.server.disconnect import ClientGoneError

ACCESS_LOG = "openproto.access"

_log = logging.getLogger(ACCESS_LOG)

_ACCEPTABLE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_VERSION = (b"omp-version", OMP_VERSION.encode())
KEY_NAME = "openproto.key_name"
"""Where a request's scope holds the name of its key, once that is known."""

CLIENT_GONE = 499
"""Logged where the client left before the response; nothing is sent."""


class Trace:
    """The outermost middleware. The log holds the route's template, never a path, query, body, user id, or key.

    It holds the name of the key, and the address of the client where that is wanted.
    """

    def __init__(self, app: ASGIApp, *, log_clients: bool = False) -> None:
        self._app = app
        self._log_clients = log_clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request with an id, and log it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = _request_id(scope)
        scope["openproto.request_id"] = request_id.decode()
        status = 500

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), _VERSION, (b"x-request-id", request_id)]
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except ClientGoneError:
            status = CLIENT_GONE
        finally:
            route = getattr(scope.get("route"), "path_format", "-")
            took = (time.perf_counter() - start) * 1e3
            self._log_access(scope, method=scope["method"], route=route, status=status, ms=round(took, 1))

    def _log_access(self, scope: Scope, **fields: object) -> None:
        if not _log.isEnabledFor(logging.INFO):
            return
        fields["request_id"] = scope["openproto.request_id"]
        text = "%(method)s %(route)s %(status)d %(ms)s ms %(request_id)s"
        if (key := scope.get(KEY_NAME)) is not None:
            fields["key"] = key
            text += " key=%(key)r"
        if self._log_clients and scope["client"]:
            fields["client"] = scope["client"][0]
            text += " client=%(client)s"
        # Made by hand: `info()` would look through the stack for a line number that is not wanted.
        _log.handle(_log.makeRecord(ACCESS_LOG, logging.INFO, "", 0, text, (fields,), None))


def _request_id(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if _ACCEPTABLE_ID.fullmatch(value):
                found: bytes = value
                return found
            break
    return new_request_id().encode()
