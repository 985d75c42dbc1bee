"""The event loop on which every sync `Memory` of this process runs its provider."""

from __future__ import annotations

import asyncio
import os
from functools import cache

from openproto import Memory, Provider


def sync_loop() -> asyncio.AbstractEventLoop:
    """Return the loop; it is found out by opening a `Memory` whose provider tells where it was opened."""
    return _loop_of(os.getpid())  # a forked child has a loop of its own


@cache
def _loop_of(process: int) -> asyncio.AbstractEventLoop:
    found: list[asyncio.AbstractEventLoop] = []

    class Finder(Provider):
        async def open(self) -> None:
            found.append(asyncio.get_running_loop())

    with Memory(Finder()):
        return found[0]
