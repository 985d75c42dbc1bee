"""An `httpx.Client` whose sockets obey `Abort`: what `Threads.http_client` gives to blocking SDKs.

httpx's own trace events name a connection only when it is opened; here every read and write records which thread waits
on which socket, so calls over reused connections can be cut too. This module needs httpx and is imported on demand.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import httpcore
import httpx

from openproto.blocking.abort import Abort, current_abort, shut_down
from openproto.blocking.unsolicited import discard_out_of_step

_LOOK_EVERY_MS = 50
"""How often a thread that is connecting looks whether its call was given up; only a connected socket can be cut."""


def abortable_client(**options: Any) -> httpx.Client:
    """Return an `httpx.Client(**options)` over HTTP/1.1, any number of whose connections are kept alive by default.

    Under a limit, httpcore at times closes as idle a connection that another thread was just given. HTTP/2 is
    refused: its calls share a connection, and cutting one would cut the others.
    """
    unlimited = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    client = httpx.Client(**{"limits": unlimited, **options}, http2=False)
    backend = _Backend()
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            # httpcore's pools take a backend, but httpx, which builds them (for each proxy too), cannot pass it on.
            transport._pool._network_backend = backend
    discard_out_of_step(client)
    return client


class _Backend(httpcore.NetworkBackend):
    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        source = (local_address, 0) if local_address else None
        with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
            sock = _connect(host, port, timeout, source, current_abort())
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in socket_options or ():
                sock.setsockopt(*option)  # pyright: ignore  # a union of its overloads
        return _Stream(sock)


class _Stream(httpcore.NetworkStream):
    """A connection; one that is closed while another thread uses it is woken, and released by that thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with _as_httpcore(httpcore.ReadTimeout, httpcore.ReadError), self._in_use(timeout):
            return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        rest = memoryview(buffer)
        while rest:
            with _as_httpcore(httpcore.WriteTimeout, httpcore.WriteError), self._in_use(timeout):
                rest = rest[self._socket.send(rest) :]

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        if isinstance(self._socket, ssl.SSLSocket):
            self.close()
            raise httpcore.UnsupportedProtocol("TLS inside TLS: use a proxy that is reached over http")
        try:
            with _as_httpcore(httpcore.ConnectTimeout, httpcore.ConnectError):
                # The handshake apart: it blocks, and needs the socket that wrapping makes.
                secured = ssl_context.wrap_socket(
                    self._socket, server_hostname=server_hostname, do_handshake_on_connect=False
                )
                self._socket = secured
                with self._in_use(timeout):
                    secured.do_handshake()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._users:
                # Not closed under a thread that waits on it: the number might be another file's when it wakes.
                shut_down(self._socket)
            else:
                self._socket.close()

    def get_extra_info(self, info: str) -> Any:
        match info:
            case "ssl_object":
                return self._socket if isinstance(self._socket, ssl.SSLSocket) else None
            case "client_addr":
                return self._socket.getsockname()
            case "server_addr":
                return self._socket.getpeername()
            case "socket":
                return self._socket
            case "is_readable":  # of an idle connection: the server has closed it
                with self._lock:
                    return self._closed or _ready(self._socket, select.POLLIN, 0)
        return None

    @contextlib.contextmanager
    def _in_use(self, timeout: float | None) -> Iterator[None]:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the connection is closed")
            self._users += 1
        try:
            self._socket.settimeout(timeout)
            with current_abort().waiting_on(self._socket):
                yield
        finally:
            with self._lock:
                self._users -= 1
                if self._closed and not self._users:
                    self._socket.close()


def _connect(
    host: str, port: int, timeout: float | None, source: tuple[str, int] | None, abort: Abort
) -> socket.socket:
    """Return a socket connected to the first address of `host` that answers, each tried for `timeout` seconds."""
    failed = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            if source:
                sock.bind(source)
            _connect_to(sock, address, timeout, abort)
        except OSError as error:
            sock.close()
            failed = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failed


def _connect_to(sock: socket.socket, address: Any, timeout: float | None, abort: Abort) -> None:
    deadline = time.monotonic() + timeout if timeout is not None else float("inf")
    sock.setblocking(False)
    status = sock.connect_ex(address)
    while status == errno.EINPROGRESS:
        abort.check()
        if _ready(sock, select.POLLOUT, _LOOK_EVERY_MS):
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        elif time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if status:
        raise OSError(status, os.strerror(status))
    abort.check()


def _ready(sock: socket.socket, event: int, within_ms: int) -> bool:
    poll = select.poll()
    poll.register(sock, event)
    return bool(poll.poll(within_ms))


@contextlib.contextmanager
def _as_httpcore(timeout: type[Exception], failure: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise timeout(error) from error
    except OSError as error:
        raise failure(error) from error
