"""The private pool in which one blocking library runs.

Every provider that blocks has its own pool, so a stuck vendor starves nobody else. The pool bounds what
*runs*: a call that is cancelled while it waits never starts, and one that is running is left alone to finish
("detached") and keeps its place in the pool until it does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Threads:
    """Runs blocking calls in at most `width` threads: `await threads(function, *args, **kwargs)`."""

    def __init__(self, width: int, name: str) -> None:
        self._width = width
        self._name = name
        self._executor: ThreadPoolExecutor | None = None
        self._closed = False

    async def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `function` returns, run in a worker with the caller's context variables.

        Cancelling returns at once: a waiting call is dropped, a running one ends in the background.
        """
        if self._closed:
            raise self._is_closed()
        context = copy_context()

        def job() -> R:
            try:
                return context.run(function, *args, **kwargs)
            except StopIteration as error:
                # A future refuses to carry StopIteration, and its awaiter would wait for ever.
                raise RuntimeError(f"a call in {self._name} raised StopIteration") from error

        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._width, thread_name_prefix=self._name)
        future = self._executor.submit(job)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            if not future.cancel():
                future.add_done_callback(self._log_detached)
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):
                # Nobody cancelled the caller: close() dropped a call that was still waiting.
                raise self._is_closed() from None
            raise

    def close(self) -> None:
        """Drop what waits and refuse what comes; never wait for a thread that is still running."""
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _is_closed(self) -> RuntimeError:
        return RuntimeError(f"the thread pool {self._name} is closed")

    def _log_detached(self, future: Future[Any]) -> None:
        error = future.exception()
        _log.debug("%s: a cancelled call ended: %s", self._name, type(error).__name__ if error else "returned")
