"""uvicorn around the app: how it is set up everywhere, and a server in a thread of the program that uses it."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from openproto.server.connections import Connections
from openproto.server.http_protocol import HttpProtocol
from openproto.server.settings import Address, ServerSettings

_LONGEST_START = 30.0


def uvicorn_options(settings: ServerSettings) -> dict[str, Any]:
    """Return what every server here has in common; the access log is the app's own."""
    return {
        "loop": "uvloop",
        "http": partial(HttpProtocol, Connections(settings)),
        "ws": "none",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
    }


@contextmanager
def binding(address: Address) -> Iterator[None]:
    """Bind `address` within the block; an OSError says which one failed, and why."""
    try:
        yield
    except OSError as error:
        said = (error.strerror or str(error)).partition(" (while ")[0]
        if error.errno == errno.EADDRINUSE:
            said += "; choose another port, or end what listens there"
        raise OSError(error.errno, f"{address.host} port {address.port}: {said}") from error


@contextmanager
def running(app: ASGIApp, settings: ServerSettings | None = None) -> Iterator[str]:
    """Serve `app` until the block is left, from a thread on a free loopback port, and yield its URL.

    Of `settings`, which default to the environment's, the bounds on connections count. RuntimeError when it does not
    start.
    """
    options = uvicorn_options(settings or ServerSettings())
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],), name="openproto-server", daemon=True)
        thread.start()
        deadline = time.monotonic() + _LONGEST_START
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the server did not start; look at the log of 'uvicorn.error'")
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
