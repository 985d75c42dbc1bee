"""Waiting for what happens outside of the event loop, where no `asyncio.Event` can be set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as `condition`, or what it awaits, holds; a TimeoutError where it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not (await held if isawaitable(held := condition()) else held):
            await asyncio.sleep(0.002)
