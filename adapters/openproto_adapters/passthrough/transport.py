"""One pool of connections and the queue before it; imported only when a client opens, because its libraries are large.

The types are httpx's and the sockets aiohttp's, whose pool does not slow down as requests in flight grow. Even so no
request enters it before a connection is free for it: who waits, waits outside, and a cancelled one is never sent.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from contextlib import aclosing
from importlib.metadata import version

import aiohttp
import certifi  # noqa: F401  httpx would import it on the loop, whatever it is told to trust
import httpx
from aiohttp.abc import AbstractResolver, ResolveResult
from httpx_aiohttp import AiohttpTransport

from openproto.blocking.threads import Threads
from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError
from openproto_adapters.passthrough.answers import Reply

USER_AGENT = f"openproto/{version('openproto')}".encode()
KEEP_ALIVE = 4.0
"""Seconds that an idle connection is kept: fewer than the 5 after which common servers close theirs, so that a write
which may not be repeated does not meet a connection that is just being closed."""

LARGEST_ANSWER = 64 * 2**20
"""Bytes, decompressed: more than 500 records of the greatest length."""

_CAUGHT = (aiohttp.ClientError, httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError)

# The first class that fits decides, so the narrow ones stand before the wide.
_ERRORS: tuple[tuple[type[BaseException], type[OpenProtoError], str], ...] = (
    (
        aiohttp.ClientConnectorCertificateError,
        ProviderUnavailableError,
        "the TLS certificate is not trusted here: correct base_url=, or name the authority's file in SSL_CERT_FILE",
    ),
    (
        aiohttp.ClientSSLError,
        ProviderUnavailableError,
        "TLS could not be agreed on: is it a server of https:// at all, and of TLS 1.2 or newer?",
    ),
    (
        aiohttp.ClientConnectorDNSError,
        ProviderUnavailableError,
        "the host's name is not known: look at base_url= and at the network",
    ),
    (
        aiohttp.ClientConnectorError,
        ProviderUnavailableError,
        "no connection: nothing listens there, or no network leads there; look at base_url=",
    ),
    (aiohttp.ClientResponseError, ProviderError, "the answer is not HTTP: look at base_url="),
    (httpx.InvalidURL, ProviderError, "base_url= is not an address that can be asked"),
    (UnicodeError, ProviderError, "the host in base_url= is not a name that can be looked up"),
    (
        httpx.DecodingError,
        ProviderError,
        "the answer's compression is broken; look at base_url= and at what stands before the server",
    ),
    (
        aiohttp.ClientError,
        ProviderUnavailableError,
        "the connection was lost before the answer was complete; a write may or may not have "
        "happened: look before trying again",
    ),
    (
        OSError,
        ProviderUnavailableError,
        "the network failed; a write may or may not have happened: look before trying again",
    ),
)


def tls_context(*, needed: bool) -> ssl.SSLContext:
    """Return the context for https:// (reading the authorities takes tens of milliseconds), or a bare one."""
    return httpx.create_ssl_context() if needed else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class Http:
    """At most `max_connections` connections to one server, on the running event loop."""

    def __init__(self, origin: str, tls: ssl.SSLContext, max_connections: int) -> None:
        self._origin = origin
        self._slots = asyncio.Semaphore(max_connections)
        self._names = _Names()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=max_connections, keepalive_timeout=KEEP_ALIVE, ssl=tls, resolver=self._names
            ),
            cookie_jar=aiohttp.DummyCookieJar(),  # a cookie would tie the calls of different users together
            middlewares=(_send_once,),
        )
        self._transport = AiohttpTransport(verify=tls, client=self._session)

    async def send(self, method: str, url: str, headers: Mapping[bytes, bytes], body: bytes | None) -> Reply:
        """Return the whole answer. Redirects are answers too: following one could carry credentials elsewhere."""
        async with self._slots:
            if self._session.closed:
                raise ProviderUnavailableError("the connections were closed; use an open client")
            try:
                response = await self._transport.handle_async_request(
                    httpx.Request(method, url, headers=headers, content=body)
                )
                async with aclosing(response):
                    return Reply(response.status_code, response.headers, await self._read(response))
            except _CAUGHT as error:
                raise self._typed_error(error) from error

    async def close(self) -> None:
        """Close every connection at once; requests still running fail."""
        await self._session.close()
        await self._names.close()

    async def _read(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > LARGEST_ANSWER:
                raise ProviderError(
                    f"{self._origin}: the answer is larger than {LARGEST_ANSWER >> 20} MiB; ask for less"
                )
            chunks.append(chunk)
        return b"".join(chunks)

    def _typed_error(self, error: BaseException) -> OpenProtoError:
        # httpx's class says less than aiohttp's, which stands behind it.
        cause = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
        for kind, typed, text in _ERRORS:
            if isinstance(cause, kind):
                return typed(f"{self._origin}: {text}")
        return ProviderError(
            f"{self._origin}: the request failed inside the HTTP library ({type(cause).__name__}); report it"
        )


class _Names(AbstractResolver):
    """Looks names up in a thread that no exit waits for: asyncio waits for its own, and a lookup can hang."""

    def __init__(self) -> None:
        self._threads = Threads(1, "openproto-passthrough-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._threads(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=proto, flags=socket.AI_NUMERICHOST
            )
            for kind, _, proto, _, address in found
        ]

    async def close(self) -> None:
        self._threads.close()


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Leave repeating to the client: aiohttp would send a DELETE again that may have been carried out already."""
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise aiohttp.ClientConnectionError(*error.args) from error
