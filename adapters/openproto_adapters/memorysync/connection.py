"""A bounded number of connections, and over them an SDK client for each end user; imported only when a provider opens.

The SDK names the end user in its constructor, and a pool for each would cost a TLS context of 90 ms. One pool for all
of them inspects every connection with every request, which delays the loop, so each connection is a pool of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

import httpx
from memorysync import AsyncMemorySyncClient

from openproto.blocking.unsolicited import discard_out_of_step_of
from openproto.emulation import Recent
from openproto.errors import OpenProtoError
from openproto_adapters.memorysync.errors import as_protocol_error, closed

T = TypeVar("T")

MOST_CLIENTS = 256

_transport: ContextVar[httpx.AsyncHTTPTransport] = ContextVar("openproto_memorysync_transport")


class Options(NamedTuple):
    """What a connection is made of; `timeout` is in seconds, and bounds each request as a whole."""

    api_key: str
    base_url: str
    project_id: str | None
    timeout: float
    max_connections: int


class Connection:
    """At most `max_connections` requests at once; making one takes a while, and belongs in a thread."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._slots = asyncio.Semaphore(options.max_connections)
        tls = httpx.create_ssl_context()
        self._transports = [httpx.AsyncHTTPTransport(verify=tls) for _ in range(options.max_connections)]
        for transport in self._transports:
            discard_out_of_step_of(transport)
        self._free = [*self._transports]
        self._clients: Recent[str, AsyncMemorySyncClient] = Recent(MOST_CLIENTS)
        self._deadlines: set[asyncio.Timeout] = set()
        self._is_closed = False
        self._bare = httpx.AsyncClient(
            base_url=options.base_url,
            headers={"X-API-Key": options.api_key},
            timeout=options.timeout,
            transport=_Borrowed(),
        )
        self._client("openproto")  # the first one imports more of the SDK

    async def call(self, end_user: str, request: Callable[[AsyncMemorySyncClient], Awaitable[T]]) -> T:
        """Return what the end user's client answers to the request, or raise a typed error."""
        return await self._bounded(lambda: request(self._client(end_user)))

    async def fetch(self, path: str) -> httpx.Response:
        """Return the answer at a path for which the SDK has no method."""
        return await self._bounded(lambda: self._bare.get(path))

    async def close(self) -> None:
        """End the requests that are under way, and close every connection."""
        self._is_closed = True
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(0.0)
        for transport in self._transports:
            await transport.aclose()

    async def _bounded(self, request: Callable[[], Awaitable[T]]) -> T:
        async with self._slots:
            if self._is_closed:  # a transport would open a connection again, which would stay open
                raise closed()
            transport = self._free.pop()  # the last one used, whose connection is the freshest
            _transport.set(transport)
            # httpx's own timeouts start anew with every byte that comes.
            deadline = asyncio.timeout(self._options.timeout)
            self._deadlines.add(deadline)
            try:
                async with deadline:
                    return await request()
            except OpenProtoError:
                raise
            except Exception as error:
                raise (closed() if self._is_closed else as_protocol_error(error)) from error
            finally:
                self._deadlines.discard(deadline)
                self._free.append(transport)

    def _client(self, end_user: str) -> AsyncMemorySyncClient:
        client = self._clients.get(end_user)
        if client is None:
            api_key, base_url, project_id, timeout, _ = self._options
            client = AsyncMemorySyncClient(
                api_key, base_url, project_id=project_id, end_user_id=end_user, timeout=timeout, transport=_Borrowed()
            )
            self._clients.put(end_user, client)
        return client


class _Borrowed(httpx.AsyncBaseTransport):
    """The transport of the call in progress, for clients that own none: closing them closes nothing."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request over that transport."""
        return await _transport.get().handle_async_request(request)
