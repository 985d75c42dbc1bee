"""The route class: FastAPI declares a handler's parameters in the OpenAPI, openproto's own rules read them.

FastAPI validates in its own words and laxly; the protocol is strict and has one error envelope. So a handler is
written as any FastAPI handler is (`Query()`, `Body()`, `Path()`, `Header()`, `Depends()`), and here each parameter is
bound with the models of `openproto.requests`. It also costs less, because nothing is resolved again at each request.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias, get_args

from fastapi import params
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openproto import AsyncMemory, InternalError, OpenProtoError, ProviderUnavailableError
from openproto.server.access import Gate, header
from openproto.server.body import read_model, read_query
from openproto.server.disconnect import ClientGoneError, while_connected
from openproto.server.http_errors import error_response
from openproto.server.key_ring import KeyRing

_log = logging.getLogger(__name__)

SERVICES = "openproto.services"
"""Where a request's scope holds the `Services`."""

Endpoint: TypeAlias = Callable[..., Awaitable[Response]]
Reader: TypeAlias = Callable[[Request], Any]


class Services(NamedTuple):
    """What every route works with."""

    memory: AsyncMemory
    gate: Gate
    keys: KeyRing


class ProtocolRoute(APIRoute):
    """Binds, runs while the client is there, and answers every failure with the envelope."""

    def __init__(self, path: str, endpoint: Endpoint, **declared: Any) -> None:
        super().__init__(path, endpoint, **declared)
        self._endpoint = endpoint
        self._readers = [
            (parameter.name, *_reader(parameter))
            for parameter in inspect.signature(endpoint, eval_str=True).parameters.values()
        ]
        self.app = self._serve

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            response = await self._answer(request)
        except asyncio.CancelledError:
            # Only a server that has waited long enough for its end cancels a request whose client is still there.
            response = error_response(
                ProviderUnavailableError("the server is shutting down; try again soon", retry_after=1), request
            )
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            # In the order of the parameters: who asks comes before what is asked.
            values = {name: await read(request) if waits else read(request) for name, read, waits in self._readers}
            return await while_connected(request.receive, lambda: self._endpoint(**values))
        except OpenProtoError as error:
            return error_response(error, request)
        except ClientGoneError:
            raise
        except Exception as error:
            log_fault(error, request)
            return error_response(
                InternalError("a fault inside the server; ask whoever runs it to look at its log"), request
            )


def log_fault(error: Exception, request: Request) -> None:
    """Log where it happened, and not what the exception says: that may be a memory's content."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    _log.error("request %s: %s\n%s", request.scope["openproto.request_id"], type(error).__name__, frames)


def _reader(parameter: inspect.Parameter) -> tuple[Reader, bool]:
    """Return what reads a parameter off a request, and whether it must be awaited."""
    model, *rest = get_args(parameter.annotation)
    mark = rest[-1]
    match mark:
        case params.Depends(dependency=dependency) if dependency is not None:
            return dependency, inspect.iscoroutinefunction(dependency)
        case params.Body():
            return lambda request: read_model(request, model), True
        case params.Query():
            return lambda request: read_query(request, model), False
        case params.Path():
            return lambda request: request.path_params[parameter.name], False
        case params.Header(alias=str(alias)):
            name = alias.lower().encode()
            return lambda request: header(request, name), False
    raise TypeError(f"{parameter} is nothing that a handler can be given")
