"""Waiting for what happens outside of the event loop, where no `asyncio.Event` can be set."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as `condition`, or what it awaits, holds; a TimeoutError where it does not within `seconds`."""
    async with asyncio.timeout(seconds):
        while not (await held if isawaitable(held := condition()) else held):
            await asyncio.sleep(0.002)


async def cancelled(*calls: asyncio.Future[Any], seconds: float = 20.0) -> bool:
    """Cancel calls, wait for their ends, and return whether each ended as cancelled."""
    for call in calls:
        call.cancel()
    await asyncio.wait(calls, timeout=seconds)
    return all(call.cancelled() for call in calls)
