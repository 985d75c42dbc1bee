"""Keeps web pages away: a browser would carry their requests to a server that trusts every program on the machine.

A page of another origin sends `Origin`; a page whose name was made to resolve to this machine (DNS rebinding) sends its
own name as `Host`. Both are refused before anything else looks at the request.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from openproto import InvalidRequestError, OpenProtoError, ScopeDeniedError
from openproto.server.http_errors import error_response
from openproto.server.settings import ServerSettings


class Guard:
    """Lets through requests for a name of this server, from no page, from its own, or from a listed origin."""

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._origins = frozenset(settings.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or hand it on."""
        if scope["type"] == "http" and (refusal := self._refusal(scope)):
            await error_response(refusal, Request(scope))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> OpenProtoError | None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        origins = [value for name, value in scope["headers"] if name == b"origin"]
        if len(hosts) != 1 and (hosts or scope["http_version"] == "1.1"):
            return InvalidRequestError("host: must be given exactly once")
        if len(origins) > 1:
            return InvalidRequestError("origin: must not be given twice")
        host = hosts[0].decode("latin-1").lower() if hosts else ""
        origin = origins[0].decode("latin-1").lower() if origins else None
        if refusal := self._foreign(host, origin):
            return ScopeDeniedError(refusal)
        return None

    def _foreign(self, host: str, origin: str | None) -> str | None:
        if self._hosts and _without_port(host) not in self._hosts:
            return "the Host header names no host of this server; --allowed-host adds one"
        if (
            origin is None
            or origin in self._origins
            or "*" in self._origins
            or origin in (f"http://{host}", f"https://{host}")
        ):
            return None
        return "web pages of this origin may not call this server; --cors-origin allows one"


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host
