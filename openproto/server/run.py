"""Serving with uvicorn: everything is tried before the port is bound, and every stop is an orderly one."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias

import uvicorn
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from openproto import AsyncMemory
from openproto.server.app import create_app
from openproto.server.log import log_config
from openproto.server.running import binding, uvicorn_options
from openproto.server.settings import Address, ServerSettings

_log = logging.getLogger(__name__)

_BACKLOG = 2048

MakeObserver: TypeAlias = Callable[[], Any]
"""Returns an observer; a function of a module, because it is sent to the workers."""


def serve(
    provider: str,
    options: Mapping[str, Any],
    settings: ServerSettings,
    *,
    observers: Sequence[MakeObserver] = (),
    also: str = "",
    on_ready: Callable[[str], object] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT: then take no more requests, finish those that run, and return.

    `options` are those of `AsyncMemory(provider, **options)`. Each worker makes its own `observers`. `also` is logged
    after the address. With one worker, `on_ready` is called with the URL once requests are answered. Raises OSError
    where the address cannot be bound.
    """
    config = uvicorn.Config(
        # A function that each worker calls, for a client belongs to one process.
        partial(_make_app, provider, options, settings, observers),
        factory=True,
        workers=settings.workers,
        timeout_graceful_shutdown=settings.shutdown_timeout,
        log_config=log_config(settings),
        **uvicorn_options(settings),
    )
    # SIGTERM means the same as Ctrl-C, also before and after uvicorn handles both. SIGHUP ends nothing: a worker
    # inherits that it is ignored, and looks at the file of keys because of it once it can.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with _bound(settings) as listener, suppress(KeyboardInterrupt):
        url = f"http://{Address(settings.host, listener.getsockname()[1])}"
        ready = f"serving {provider} on {url} ({_description(settings)}){also}"
        if settings.workers > 1:
            supervisor = _Supervisor(config, [listener])
            _log.info(ready)  # callers who come before the workers do wait in the socket's queue
            supervisor.run()
        else:
            _Server(config, ready, partial(on_ready, url) if on_ready else None).run([listener])


class _Server(uvicorn.Server):
    """Says when it is ready."""

    def __init__(self, config: uvicorn.Config, ready: str, on_ready: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._ready = ready
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _log.info(self._ready)
        if self._on_ready is not None:
            self._on_ready()


class _Supervisor(Multiprocess):
    """Hands SIGHUP on to the workers, where uvicorn would replace them."""

    def handle_hup(self) -> None:
        for worker in self.processes:
            if worker.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGHUP)


def _make_app(
    provider: str, options: Mapping[str, Any], settings: ServerSettings, observers: Sequence[MakeObserver]
) -> ASGIApp:
    return create_app(AsyncMemory(provider, observers=[make() for make in observers], **options), settings)


def _bound(settings: ServerSettings) -> socket.socket:
    address = Address(settings.host, settings.port)
    with binding(address):
        return socket.create_server(
            address, family=socket.AF_INET6 if ":" in address.host else socket.AF_INET, backlog=_BACKLOG
        )


def _description(settings: ServerSettings) -> str:
    workers = f"{settings.workers} worker{'s' if settings.workers > 1 else ''}"
    keys = f"{len(settings.keys)} API key{'s' if len(settings.keys) > 1 else ''}" if settings.keys else "no API keys"
    return f"{workers}, {keys}"
