"""The background event loop of every synchronous `Memory` of the process: one daemon thread, created on demand."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

_lock = threading.RLock()  # a finalizer may call from anywhere, also from inside `background_loop`
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """Return the process's background loop, starting it at the first call."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="openproto-loop", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # from Python 3.12 on, none starts once the interpreter began to exit
                loop.close()
                raise RuntimeError(_TOO_LATE) from error
            if _loop is None:
                _loop, _thread = loop, thread
        return _loop


def run(coroutine: Coroutine[Any, Any, T], *, within: float | None = None) -> T:
    """Run `coroutine` on the background loop and wait for it, at most `within` seconds; an interrupt cancels it.

    The caller's context variables are seen by the coroutine. Raises RuntimeError where waiting would never end: on
    the background loop itself, and while the interpreter is torn down, when that loop runs no more.
    """
    try:
        if sys.is_finalizing():
            raise RuntimeError(_TOO_LATE)
        loop = background_loop()
        if is_background():
            raise RuntimeError(
                "Memory was called on its own background loop, which would wait for itself; use AsyncMemory"
            )
    except RuntimeError:
        coroutine.close()
        raise
    return run_on(loop, coroutine, within=within)


def run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T], *, within: float | None = None) -> T:
    """Run `coroutine` on a loop that runs in another thread, and wait for it as `run` does."""
    call = _HandOver(coroutine, loop)
    try:
        loop.call_soon_threadsafe(call.start)
        if not call.ended.acquire(timeout=-1 if within is None else within):
            raise TimeoutError
    except BaseException:
        loop.call_soon_threadsafe(call.cancel)
        raise
    return call.result()


class _HandOver(Generic[T]):
    """A coroutine for the loop, and the lock that its end releases.

    `asyncio.run_coroutine_threadsafe` takes a third longer: it chains two futures, and waits by a condition.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self.ended = threading.Lock()
        self.ended.acquire()

    def start(self) -> None:
        """Start the coroutine, on the loop and in the context of who handed it over."""
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(lambda _: self.ended.release())

    def cancel(self) -> None:
        """Cancel the coroutine, on the loop."""
        if self._task is None:  # the interrupt came before it was handed over
            self._coroutine.close()
        else:
            self._task.cancel()

    def result(self) -> T:
        """Return what the coroutine returned, or raise what it raised."""
        task, self._task = cast("asyncio.Task[T]", self._task), None
        try:
            if task.cancelled():
                raise CancelledError
            return task.result()
        finally:
            del task  # else an error would hold its own traceback


def finish(coroutine: Coroutine[Any, Any, None], within: float) -> None:
    """Run what closes a client, within a bound and wherever it is called from.

    A finalizer that the garbage collector runs on the background loop cannot wait for it: closing then goes on there.
    While the interpreter is torn down nothing is left to close.
    """
    if sys.is_finalizing():
        coroutine.close()
    elif is_background():
        asyncio.run_coroutine_threadsafe(coroutine, background_loop())
    else:
        with contextlib.suppress(TimeoutError):
            run(coroutine, within=within)


def is_background() -> bool:
    """Say whether this is the background loop's own thread."""
    return threading.current_thread() is _thread


def _forget() -> None:
    """After a fork only the calling thread lives: the loop's thread is gone, so the child makes another loop."""
    global _lock, _loop, _thread
    if _loop is not None:
        # What the parent's clients leave on it is the parent's to close: dropping it here is not an error to report.
        _loop.set_exception_handler(lambda loop, context: None)
    _lock, _loop, _thread = threading.RLock(), None, None


_TOO_LATE = "the interpreter is exiting, and Memory works no more: call it, and close it, before the program ends"

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
