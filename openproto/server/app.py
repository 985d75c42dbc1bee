"""The ASGI application: one client of the backend, the routes, and the layers round them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPMethod

from pydantic_core import to_json
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from openproto import AsyncMemory, NotFoundError
from openproto.server.access import Gate
from openproto.server.guard import Guard
from openproto.server.http_errors import MethodNotAllowedError, error_response
from openproto.server.inspector import DOCS, INSPECTOR
from openproto.server.key_ring import KeyRing
from openproto.server.openapi import describe
from openproto.server.route import SERVICES, ProtocolRoute, Services
from openproto.server.routes import ROUTES
from openproto.server.settings import ServerSettings
from openproto.server.trace import Trace

_EXPOSED = ("ETag", "OMP-Version", "Retry-After", "X-Request-Id")


def create_app(memory: AsyncMemory, settings: ServerSettings | None = None) -> ASGIApp:
    """Return the ASGI application that serves `memory`, an unopened client: opened at startup, closed at the end.

    `settings` default to the environment's; where and with how many workers to serve, the caller decides.
    """
    settings = settings or ServerSettings()
    keys = KeyRing(settings)

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        async with memory, keys.following():
            with suppress(asyncio.CancelledError):  # a second Ctrl-C; the client is closed all the same
                yield

    routes = [*ROUTES, *DOCS, *(INSPECTOR if settings.ui else ())]
    app: ASGIApp = _Dispatch(routes, describe_as=to_json(describe(ROUTES, with_keys=keys.required)))
    if origins := settings.cors_origins:
        app = _Cors(app, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=_EXPOSED)
    app = Trace(Guard(app, settings), log_clients=settings.log_clients)
    services = Services(memory, Gate(settings, keys), keys)
    startup_and_shutdown = Router(lifespan=lifespan)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope[SERVICES] = services
            await app(scope, receive, send)
        else:
            await startup_and_shutdown(scope, receive, send)

    return serve


class _Cors(CORSMiddleware):
    """Starlette's, which answers a preflight for an unknown method with an error as text."""

    def preflight_response(self, request_headers: Headers) -> Response:
        """Say what is allowed, and leave it to the browser to refuse the rest, as it does."""
        answer = super().preflight_response(request_headers)
        allowed = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return Response(headers=allowed)


class _Dispatch:
    """Finds the route of a request. FastAPI's router does more for each request than the routes here need."""

    def __init__(self, routes: Sequence[ProtocolRoute], *, describe_as: bytes) -> None:
        self._routes = routes
        self._document = describe_as

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        allowed: set[str] = set()
        for route in self._routes:
            if found := route.path_regex.fullmatch(path):
                methods = route.methods or ()
                if method in methods:
                    scope["path_params"] = found.groupdict()
                    scope["route"] = route
                    await route.app(scope, receive, send)
                    return
                allowed.update(methods)
        response = self._without_route(Request(scope), allowed)
        await response(scope, receive, send)

    def _without_route(self, request: Request, allowed: set[str]) -> Response:
        if request.scope["path"] == "/openapi.json":
            if request.method == HTTPMethod.GET:
                return Response(self._document, media_type="application/json")
            allowed = {HTTPMethod.GET}
        if not allowed:
            return error_response(NotFoundError("no such route; ask GET /openapi.json for those there are"), request)
        methods = ", ".join(sorted(allowed))
        response = error_response(MethodNotAllowedError(f"this route takes only other methods; use {methods}"), request)
        response.headers["Allow"] = methods
        return response
