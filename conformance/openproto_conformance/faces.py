"""Both faces through one awaitable view, so that each case is written once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from openproto import Memory, MemoryRecord

Face: TypeAlias = Literal["async", "sync"]
FACES: tuple[Face, ...] = get_args(Face)


class AwaitableMemory:
    """A `Memory` whose methods are awaited: each call blocks a thread of `threads`, never the case's loop."""

    def __init__(self, memory: Memory, threads: Executor) -> None:
        self.memory = memory
        self._threads = threads

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.memory, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._run(method, *args, **kwargs)

        call.__name__ = name
        return call

    async def iter(self, *args: Any, **kwargs: Any) -> AsyncIterator[MemoryRecord]:
        """Yield what the sync iterator yields."""
        records = self.memory.iter(*args, **kwargs)
        while (record := await self._run(next, records, None)) is not None:
            yield record

    def __repr__(self) -> str:
        return repr(self.memory)

    async def _run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
