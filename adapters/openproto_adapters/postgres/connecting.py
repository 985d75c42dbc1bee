"""Opening connections: by tasks that no caller's cancellation reaches, and with words for what keeps them out."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from typing import Any, TypeAlias
from urllib.parse import parse_qs, urlsplit

import asyncpg

from openproto.errors import InvalidRequestError, OpenProtoError, ProviderError
from openproto.fanout import shielded

_FILES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "sslcrl": "PGSSLCRL"}

_Opening: TypeAlias = "asyncio.Task[asyncpg.Connection]"


class Connector:
    """Opens connections for a pool; one whose caller was cancelled is kept for the next caller.

    asyncpg's `connect` logs an error when it is cancelled while TLS is negotiated, and the server has to fork and
    authenticate for nothing. So it always runs to its end.
    """

    def __init__(self) -> None:
        self._kept: deque[_Opening] = deque()

    async def __call__(self, *args: Any, **options: Any) -> asyncpg.Connection:
        """Return a connection as `asyncpg.connect` does."""
        opening = self._take() or asyncio.create_task(asyncpg.connect(*args, **options), name="openproto-connect")
        try:
            return await shielded(opening)
        except asyncio.CancelledError:
            if not opening.cancelled():
                self._kept.append(opening)
            raise

    async def close(self, timeout: float) -> None:
        """Close what was kept; connections that are not open after `timeout` seconds are given up."""
        kept = list(self._kept)
        self._kept.clear()
        if not kept:
            return
        opened, late = await asyncio.wait(kept, timeout=timeout)
        for opening in late:
            opening.cancel()
        for opening in opened:
            if _failure(opening) is None:
                opening.result().terminate()

    def _take(self) -> _Opening | None:
        while self._kept:
            opening = self._kept.popleft()
            if not opening.done() or (_failure(opening) is None and not opening.result().is_closed()):
                return opening
        return None


def _failure(opening: _Opening) -> BaseException | None:
    return asyncio.CancelledError() if opening.cancelled() else opening.exception()


def address(url: str) -> str:
    """Return host and port as the URL, or else the environment, has them; never a user or password."""
    try:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
    except ValueError:
        return "the server"
    hosts = parts.netloc.rpartition("@")[2] or options.get("host", [os.environ.get("PGHOST", "")])[0]
    port = options.get("port", [os.environ.get("PGPORT", "5432")])[0]
    if not hosts:
        return f"the local socket, port {port}"
    return hosts if hosts.rpartition(":")[2].isdigit() and not hosts.endswith("]") else f"{hosts}, port {port}"


def tls_error(error: BaseException, url: str) -> OpenProtoError | None:
    """Return the error for what keeps TLS from being agreed on, or None when that is not the matter."""
    text: str | None = None
    kind: type[OpenProtoError] = ProviderError
    if isinstance(error, ssl.SSLCertVerificationError):
        text = (
            f"the TLS certificate of {address(url)} is not trusted here ({error.verify_message}): name the authority's "
            "file in sslrootcert=, or connect to the host that the certificate names"
        )
    elif isinstance(error, asyncpg.ClientConfigurationError) and "root certificate" in str(error):
        kind = InvalidRequestError
        text = (
            "sslmode= wants the server's certificate checked, and there is no root certificate to check it with: name "
            "the authority's file in sslrootcert=, or put it at ~/.postgresql/root.crt"
        )
    elif isinstance(error, ConnectionError) and "SSL upgrade" in str(error):
        text = (
            f"{address(url)} speaks no TLS, and sslmode= demands it: turn ssl on in the server's postgresql.conf, or "
            "connect with sslmode=prefer where the network may be trusted"
        )
    elif isinstance(error, (FileNotFoundError, PermissionError, ssl.SSLError)) and (bad := _bad_file(url)):
        kind = InvalidRequestError
        text = f"the file that {bad}= names cannot be read, and TLS needs it: look at its path and permissions"
    elif isinstance(error, ssl.SSLError):
        text = (
            f"TLS with {address(url)} could not be agreed on ({error.reason or type(error).__name__}): look at the "
            "server's ssl_* settings, and at sslcert= and sslkey= where it wants a client's certificate"
        )
    return kind(text, provider="postgres") if text else None


def _bad_file(url: str) -> str | None:
    """Return the name of the first option whose file cannot be read."""
    options = parse_qs(urlsplit(url).query)
    for option, variable in _FILES.items():
        path = options.get(option, [os.environ.get(variable)])[0]
        if path and not os.access(path, os.R_OK):
            return option
    return None
