"""Several things awaited at once, and none of them left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any


async def together(*calls: Awaitable[Any]) -> list[Any]:
    """Return what the calls return, or raise the first error once every call has ended; cancelling cancels them all.

    Unlike `asyncio.gather` no call goes on unattended after another's error, and a cancellation comes out as it went
    in, which is how a cancel scope knows its own. Unlike a TaskGroup's the error is raised as it is, and the other
    calls, which may be writing, are let finish.
    """
    errors: list[Exception] = []

    async def ended(call: Awaitable[Any]) -> Any:
        try:
            return await call
        except Exception as error:
            errors.append(error)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ended(call)) for call in calls]
    if errors:
        raise errors[0]
    return [task.result() for task in tasks]
