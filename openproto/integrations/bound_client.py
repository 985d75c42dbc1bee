"""Where a memory client lives: the one event loop that may use it, reached from any thread or loop.

A `Memory` lives on the process's background loop and serves every caller. An `AsyncMemory` lives on the loop that first
used it; other threads may wait for it, other loops may not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from openproto import AsyncMemory, Memory
from openproto.client.loop import background_loop, run, run_on

T = TypeVar("T")


class BoundClient:
    """The loop of `memory`, and the client to be used there."""

    def __init__(self, memory: Memory | AsyncMemory) -> None:
        self._memory = memory
        self._bound: asyncio.AbstractEventLoop | None = None

    @property
    def is_shared(self) -> bool:
        """Whether any thread and any loop may ask; if not, only the client's own loop."""
        return isinstance(self._memory, Memory)

    @property
    def client(self) -> AsyncMemory:
        """The client that lives on `loop`."""
        return self._memory._async if isinstance(self._memory, Memory) else self._memory

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the client's loop; an `AsyncMemory` without one is bound to the running loop."""
        if self.is_shared:
            return background_loop()
        if self._bound is None:
            self.client._session.check_loop()
            self._bound = asyncio.get_running_loop()
        return self._bound

    def check(self) -> None:
        """Raise RuntimeError when the running loop may not use this client."""
        if not self.is_shared and self.loop() is not asyncio.get_running_loop():
            raise RuntimeError(
                "AsyncMemory is bound to a different event loop; give wrap() a Memory to serve several loops"
            )

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work`, which uses `client`, on the client's own loop, and wait for it.

        Raises InvalidStateError for an `AsyncMemory` that nothing has used yet, and on its loop, which would wait for
        itself.
        """
        if self.is_shared:
            return run(work)
        if self._bound is None or not self._bound.is_running() or _is_in_loop():
            work.close()
            raise asyncio.InvalidStateError(
                "a synchronous call on an AsyncMemory needs another thread than its loop's, and the loop running; "
                "await the asynchronous method, or use a Memory"
            )
        return run_on(self._bound, work)

    async def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which uses `client`, on the client's own loop; cancelling cancels it there."""
        if not self.is_shared:
            self.loop()  # an AsyncMemory is bound by its first use
        elif background_loop() is not asyncio.get_running_loop():
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, background_loop()))
        return await work


def _is_in_loop() -> bool:
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False
