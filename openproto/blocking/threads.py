"""The private pool in which one blocking library runs.

Every provider that blocks has its own pool, so a stuck vendor starves nobody else. The pool bounds what *runs*: a call
that is cancelled while it waits never starts. One that is running is aborted where it uses the network through
`http_client`, and otherwise left alone to finish ("detached"), which keeps its place in the pool until it does.

The threads are the pool's own rather than a ThreadPoolExecutor's, since the interpreter waits for those when it exits,
and a stuck one would hang it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

from openproto.blocking.abort import Abort, CallAborted, abortable_by
from openproto.errors import ProviderUnavailableError

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class Threads:
    """Runs blocking calls in at most `width` threads: `await threads(function, *args, **kwargs)`.

    A pool serves one event loop. An adapter over a blocking SDK that speaks HTTP makes both in `open()`, and its calls
    then end within milliseconds of being cancelled:

        self._threads = Threads(8, "openproto-letta")
        self._client = await self._threads(self._connect)      # imports and TLS certificates take their time

        @large_import()
        def _connect(self):
            from letta_client import Letta
            return Letta(http_client=self._threads.http_client(timeout=30.0), max_retries=0, ...)

        await self._threads(self._client.archives.create, name=...)

    and calls `self._threads.close()` in `close()`. Its provider says `cancellation = "aborting"`, and turns the SDK's
    own retries off: they sleep between tries, and nothing wakes a sleeping thread.
    """

    def __init__(self, width: int, name: str) -> None:
        self._width = width
        self._name = name
        self._queue: _Queue = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._calls: set[_Call] = set()
        self._clients: list[httpx.Client] = []
        self._closed = False
        # Also ends the threads of a pool that nobody closed. Not at exit, where its owner may still have work for it.
        self._end_threads = weakref.finalize(self, self._queue.put, None)
        self._end_threads.atexit = False

    async def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Return what `function` returns, run in a worker with the caller's context variables.

        Cancelling returns at once: a waiting call is dropped, a running one aborted or left to end in the background.
        Raises ProviderUnavailableError for a call that `close()` cuts off or forestalls, and RuntimeError where no
        thread can run it, because the interpreter exits.
        """
        call = self._begin(partial(copy_context().run, function, *args, **kwargs))
        try:
            result: R = await call.outcome
            return result
        finally:
            self._calls.discard(call)
            call.give_up()
            del call  # an error's traceback holds this frame, and the call's outcome the error

    def submit(self, function: Callable[[], R], then: Callable[[], None]) -> asyncio.Future[R]:
        """Start what a call of this object does, and return its future; cancelling that gives the call up.

        `then` is called once it is done or cancelled.
        """
        call = self._begin(function)

        def ended(_: asyncio.Future[R]) -> None:
            self._calls.discard(call)
            call.abort.set()
            then()

        call.outcome.add_done_callback(ended)
        return call.outcome

    def _begin(self, function: Callable[[], Any]) -> _Call:
        if self._closed:
            raise closed_meanwhile()
        if sys.is_finalizing():
            raise RuntimeError(_TOO_LATE)
        call = _Call(self._name, function)
        self._calls.add(call)
        self._queue.put(call)
        if not self._idle.acquire(blocking=False) and self._started < self._width:
            try:
                self._start_thread()
            except BaseException:
                self._calls.discard(call)
                call.give_up()
                raise
        return call

    def http_client(self, **options: Any) -> httpx.Client:
        """Return an `httpx.Client(**options)` for an SDK to use in this pool's calls, which can then be aborted.

        `options` are httpx's own: `timeout`, `headers`, `verify`, `base_url`... A cancelled call raises `CallAborted`
        in its thread, at the read, write, TLS handshake, or connecting that it is at, or at its next request; only a
        name lookup cannot be cut. Closing the pool closes the client. Needs httpx, and takes long enough to be called
        in a thread.
        """
        from openproto.blocking.http import abortable_client

        client = abortable_client(**options)
        self._clients.append(client)
        return client

    def close(self) -> None:
        """Drop what waits, abort what runs, refuse what comes; never wait for a thread that is still running."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Empty):
            while (waiting := self._queue.get_nowait()) is not None:
                waiting.refuse()
        self._end_threads()
        for call in self._calls:
            call.abort.set()
        for client in self._clients:
            client.close()

    def _start_thread(self) -> None:
        # A daemon, because nobody can stop one that is stuck, and the process must be able to end all the same.
        name = f"{self._name}_{self._started}"
        thread = threading.Thread(target=_work, args=(self._queue, self._idle), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # from Python 3.12 on, none starts once the interpreter began to exit
            if not self._started:
                raise RuntimeError(_TOO_LATE) from error
        else:
            self._started += 1


def start_alone(function: Callable[[], R], name: str) -> asyncio.Future[R]:
    """Start `function` in a thread of that name, which ends with it, and return its future."""
    threads = Threads(1, name)
    outcome = asyncio.ensure_future(threads(function))
    outcome.add_done_callback(lambda _: threads.close())
    return outcome


class _Call:
    """A call on its way through the pool; made, given up, and refused on the event loop, run in a worker."""

    def __init__(self, pool: str, function: Callable[[], Any]) -> None:
        self.abort = Abort()
        self._loop = asyncio.get_running_loop()
        self.outcome: asyncio.Future[Any] = self._loop.create_future()
        self._pool = pool
        self._function = function

    def give_up(self) -> None:
        """Abort the call unless it has ended; nobody waits for it any longer."""
        self.outcome.cancel()
        self.abort.set()

    def refuse(self) -> None:
        """End a call that has not begun because the pool is closed."""
        self._settle(None, closed_meanwhile())

    def run(self) -> None:
        """Run the call, unless it was given up, and hand its outcome to the caller that waits."""
        if self.outcome.done():
            return
        try:
            with abortable_by(self.abort):
                result = self._function()
        except StopIteration:
            # A future refuses to carry StopIteration, and its awaiter would wait for ever.
            self._tell(
                None,
                RuntimeError(
                    f"a call in {self._pool} raised StopIteration, which no coroutine may; report "
                    "it to the library's authors"
                ),
            )
        except BaseException as error:
            self._tell(None, error)
            del self  # the error's traceback holds this frame: a cycle that would keep the arguments of the call
        else:
            self._tell(result, None)

    def _tell(self, result: Any, error: BaseException | None) -> None:
        try:
            if not self.outcome.done():
                self._loop.call_soon_threadsafe(self._settle, result, error)
                return
        except RuntimeError:  # the loop is closed, and nobody waits any more
            pass
        ended = type(error).__name__ if error else "returned"
        _log.debug("%s: a cancelled call ended: %s", self._pool, ended)

    def _settle(self, result: Any, error: BaseException | None) -> None:
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(result)
        else:
            # Of the calls that somebody still waits for, only closing the pool aborts any.
            self.outcome.set_exception(closed_meanwhile() if isinstance(error, CallAborted) else error)


_TOO_LATE = "the interpreter is exiting, and no thread can be started: call, and close, before the program ends"
_Queue: TypeAlias = "SimpleQueue[_Call | None]"


def _work(queue: _Queue, idle: threading.Semaphore) -> None:
    # Holds the queue and not the pool, which can thus be collected, and its threads with it.
    while True:
        try:
            call = queue.get_nowait()
        except Empty:
            idle.release()
            call = queue.get()
        if call is None:
            queue.put(None)  # for the next thread
            return
        call.run()
        del call  # or its result would live until the next one


def closed_meanwhile() -> ProviderUnavailableError:
    """Return the error of a call that its client's closing ended, or came before."""
    return ProviderUnavailableError("the client was closed while this call was running; use an open one")
