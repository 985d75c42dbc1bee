"""Connections that hold bytes nobody asked for, which are not used again.

A middlebox that answers one request twice puts a connection out of step: the second answer would be read as the answer
to the next request. httpcore looks whether an idle connection's socket is readable, but not at what it has read
already: beyond the end of the last answer, and inside of TLS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx


def discard_out_of_step(client: httpx.Client | httpx.AsyncClient) -> None:
    """Let none of the client's transports use a connection again that holds more than the answers it was asked for."""
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport | httpx.AsyncHTTPTransport):
            discard_out_of_step_of(transport)


def discard_out_of_step_of(transport: httpx.HTTPTransport | httpx.AsyncHTTPTransport) -> None:
    """Do the same for one transport."""
    # httpx cannot pass anything on to the pools that it builds, for each proxy too.
    pool: Any = transport._pool
    create: Callable[[Any], Any] = pool.create_connection

    def watched(origin: Any) -> Any:
        connection = create(origin)
        has_expired: Callable[[], bool] = connection.has_expired
        connection.has_expired = lambda: has_expired() or _is_out_of_step(connection)
        return connection

    pool.create_connection = watched


def _is_out_of_step(connection: Any) -> bool:
    """Return whether an idle connection has bytes that were read and belong to no answer."""
    while (inner := getattr(connection, "_connection", None)) is not None:  # below the pool's, and a proxy's
        connection = inner
    if not hasattr(connection, "_h11_state") or not connection.is_idle():
        return False
    unread, _ = connection._h11_state.trailing_data
    stream = connection._network_stream
    tls = stream.get_extra_info("ssl_object")
    # Of anyio's TLS, what has arrived and was not decrypted yet.
    encrypted = getattr(getattr(stream, "_stream", None), "_read_bio", None)
    return bool(unread or (tls is not None and tls.pending()) or (encrypted is not None and encrypted.pending))
