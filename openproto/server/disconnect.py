"""A client that goes away cancels its request, and with it the backend's query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from starlette.types import Receive

T = TypeVar("T")

LATE_BODY = "openproto.late_body"
"""Set in the scope of a request whose body did not arrive in time: what the app reads of it is incomplete."""

PATIENCE = 0.05
"""Seconds before a call is watched: most end sooner, and a task for each would cost more than it saves."""


class ClientGoneError(Exception):
    """Nobody waits for the response any more."""


async def while_connected(receive: Receive, run: Callable[[], Awaitable[T]]) -> T:
    """Return `await run()`; a disconnect cancels it and raises ClientGoneError. The request's body has been read."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - for the type checkers; a server runs every request in a task
    gone = False
    watch: asyncio.Task[None] | None = None

    async def cancel_when_gone() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    def start() -> None:
        nonlocal watch
        watch = asyncio.create_task(cancel_when_gone())
        # A server whose `receive` fails has lost the connection in an unknown way; the call goes on unwatched.
        watch.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    timer = asyncio.get_running_loop().call_later(PATIENCE, start)
    try:
        return await run()
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGoneError from None
        raise
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()
