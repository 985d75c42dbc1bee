"""Turns of an event loop, given out one by one: a burst of calls must not hold it for as long as all of them take."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary


class LoopTurns:
    """Lets one caller go on in each turn of a loop, in the order in which they came; one that is alone waits for none.

    What an SDK does before it sends a request takes milliseconds, and a hundred calls that start together would do it
    all in one turn.
    """

    def __init__(self) -> None:
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def next(self) -> None:
        """Return in a turn of the running loop that no other caller has."""
        async with self._gates.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            await asyncio.sleep(0)
