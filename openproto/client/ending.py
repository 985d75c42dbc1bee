"""The end of an event loop or of the process: what a client that was left open still holds is written and released.

One rule holds for whatever order finalizers, `atexit` handlers, and threads come in. A loop that is shut down, as
`asyncio.run` does, closes the clients that were opened on it. The interpreter's exit closes the others, after every
`atexit` handler that was registered once openproto was imported: in those, calls still work. Later calls fail at once.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
from collections.abc import AsyncGenerator, Coroutine
from concurrent.futures import Future
from typing import Any, Protocol, TypeAlias

_GRACE = 1.0
"""Seconds that a loop may take, on top of a client's own bound, before it counts as stuck."""


class LeftOpen(Protocol):
    """What has to be closed."""

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The loop that it belongs to, where that still exists."""
        ...

    @property
    def bound(self) -> float:
        """Seconds that `end` takes at most."""
        ...

    async def end(self) -> None:
        """Close it without the owner's doing; nothing if it is closed already."""
        ...


_open: set[LeftOpen] = set()
"""Held here, an open client is not torn down by the garbage collector: its finalizers would do it piece by piece."""

Guard: TypeAlias = AsyncGenerator[None, None]


async def guard(client: LeftOpen) -> Guard:
    """Return what closes `client` when its loop or the process ends first; to be closed with the client.

    A loop that shuts down closes its asynchronous generators, and unlike a task one that is dropped makes no noise.
    """
    watcher = _end_with_loop(client)
    await anext(watcher)
    return watcher


async def _end_with_loop(client: LeftOpen) -> Guard:
    _open.add(client)
    try:
        yield
    finally:
        _open.discard(client)
        await client.end()


def _end_all() -> None:
    waiting: list[tuple[Future[None], float]] = []
    for client in list(_open):
        loop = client.home
        if loop is None or loop.is_closed():
            continue
        if loop.is_running():  # in another thread
            waiting.append((asyncio.run_coroutine_threadsafe(client.end(), loop), client.bound + _GRACE))
        else:
            _run_to_the_end(loop, client.end())
    for ending, bound in waiting:
        with contextlib.suppress(TimeoutError):
            ending.result(bound)


def _run_to_the_end(loop: asyncio.AbstractEventLoop, ending: Coroutine[Any, Any, None]) -> None:
    try:
        loop.run_until_complete(ending)
    except RuntimeError:  # the loop can run no more
        ending.close()


def _forget() -> None:
    """After a fork the clients are the parent's, and so are the threads that their loops run in.

    Nor may anything of theirs ever be finalized in the child: closing a connection takes it out of the epoll object,
    which parent and child share.
    """
    global _open
    import ctypes  # needed by few processes

    for client in _open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(client))
    _open = set()


# Registered when openproto is imported and not when a client opens, so that it comes after the program's own handlers.
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
