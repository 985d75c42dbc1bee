"""One provider's life on one event loop: opened once, called under a deadline, closed once (PROTOCOL §4)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from openproto.client.deadline import Deadline, Deadlines
from openproto.client.ending import Guard, guard
from openproto.client.retry import Retries
from openproto.errors import OpenProtoError, ProviderError, ProviderTimeoutError
from openproto.fanout import shielded
from openproto.fields import check_seconds, check_whole
from openproto.instrumentation import CallEvent, Meter, Observer, Stats, outcome_of
from openproto.models import Operation, Verb
from openproto.provider import Provider, begin_call, current_call
from openproto.requests import MemoryInput, build_models

T = TypeVar("T")


_WRITES: frozenset[Verb] = frozenset({"add", "update", "delete"})
_MAYBE_WRITTEN = "the write may or may not have happened"


@dataclass(frozen=True, slots=True)
class Options:
    """What bounds every call of a client: seconds, counts, and the app's name for audit entries."""

    timeout: float | None = 30.0
    retries: int = 2
    close_timeout: float = 5.0
    max_concurrency: int | None = None
    app: str | None = None
    observers: tuple[Observer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse, when the client is created, what could never work."""
        check_seconds(close_timeout=self.close_timeout)
        check_whole(0, retries=self.retries)
        if self.timeout is not None:
            check_seconds(timeout=self.timeout)
        if self.max_concurrency is not None:
            check_whole(max_concurrency=self.max_concurrency)


class Companion(Protocol):
    """Background work for a client that must end before its provider is closed, such as a queue of memories."""

    async def drain(self) -> None:
        """Finish; cancelled when the time for it is over."""


class Session:
    """Holds a provider for a client called `owner`; every verb passes through `call`."""

    def __init__(self, provider: Provider, owner: str, options: Options) -> None:
        self.provider = provider
        self.options = options
        self._owner = owner
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._deadlines = Deadlines(options.timeout)
        self._slots = asyncio.Semaphore(options.max_concurrency) if options.max_concurrency else None
        self._opening: asyncio.Task[None] | None = None
        self._is_open = False
        self._guard: Guard | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._ended = False
        self._draining = False
        self._in_flight = 0
        self._idle: asyncio.Event | None = None
        self.companions: list[Companion] = []
        self._meter = Meter(options.observers)

    async def call(
        self,
        verb: Verb,
        run: Callable[[Provider], Awaitable[T]],
        *,
        repeatable: bool,
        scope: str | None = None,
        memory_id: str | None = None,
        needs: Operation | None = None,
    ) -> T:
        """Run one verb: refuse misuse, open if need be, bound it in time, and repeat it where that is safe.

        `needs` is what the provider must have beyond the verb.
        """
        self.check_usable()
        if verb not in self.provider.verbs:
            raise self.provider.unsupported(verb)
        if needs is not None and needs not in self.provider.operations:
            raise self.provider.unsupported(needs)
        if self._slots is not None:
            run = partial(self._in_slot, self._slots, run)
        call = begin_call(verb, self.options.app)
        deadline = Deadline(self._deadlines)
        token = current_call.set(call)
        self._in_flight += 1
        retries: Retries | None = None
        outcome, started = "ok", time.perf_counter()
        try:
            with deadline:
                if not self._is_open:
                    await self._opened()
                while True:
                    try:
                        return await run(self.provider)
                    except OpenProtoError as error:
                        retries = retries or Retries(self.options.retries if repeatable else 0)
                        await retries.wait_after(error)
                    current_call.set(call._replace(is_retry=True))
        except (OpenProtoError, TimeoutError) as error:
            fault = self._fault(error, deadline, repr(verb), call.request_id, is_write=verb in _WRITES)
            outcome = fault.code
            if fault is error:
                raise
            raise fault from error
        except BaseException as error:
            outcome = outcome_of(error)
            raise
        finally:
            current_call.reset(token)
            self._in_flight -= 1
            seconds, repeated = time.perf_counter() - started, retries.done if retries is not None else 0
            self._meter.count(verb, outcome, seconds, repeated)
            if self._meter.observers:
                name, request_id = self.provider.name, call.request_id
                self._meter.report(
                    CallEvent(verb, name, outcome, seconds, repeated, request_id, call.app, scope, memory_id)
                )
            if self._idle is not None and not self._in_flight:
                self._idle.set()

    async def open(self) -> None:
        """Open the provider now; when that fails or is cancelled the session is closed."""
        self.check_usable()
        try:
            await self._open_in_time()
        except BaseException:
            # `async with` never reaches __aexit__ when entering fails. Not awaited: this may be a cancellation.
            self._closed = True
            self._start_closing()
            raise

    async def _open_in_time(self) -> None:
        deadline = Deadline(self._deadlines)
        try:
            with deadline:
                if not self._is_open:
                    await self._opened()
        except (OpenProtoError, TimeoutError) as error:
            fault = self._fault(error, deadline, "opening", None)
            if fault is error:
                raise
            raise fault from error

    async def close(self) -> None:
        """Close for good: companions and running calls get half of `close_timeout`, the provider the rest."""
        if self.closed_unused():
            return
        self.check_loop()
        self._closed = True
        await shielded(self._start_closing())

    def closed_unused(self) -> bool:
        """Close a client that never ran anything, which needs no loop, and return whether it was one."""
        if self._loop is None and not self.companions:
            self._closed = True
        return self._loop is None and self._closed

    async def end(self) -> None:
        """Close what the owner left open: the event loop or the process ends."""
        if self._guard is not None:
            self._ended = True
            await shielded(self._start_closing())
            self._closing = None  # a finished task would keep the loop alive

    @property
    def home(self) -> asyncio.AbstractEventLoop | None:
        """The event loop that the client belongs to, while it exists."""
        return self._loop() if self._loop is not None else None

    @property
    def bound(self) -> float:
        """Seconds that closing takes at most."""
        return self.options.close_timeout

    @property
    def left_open(self) -> bool:
        """Whether the provider was opened and its owner has not closed it."""
        return (self._is_open or self._opening is not None) and not self._closed

    async def _in_slot(
        self, slots: asyncio.Semaphore, run: Callable[[Provider], Awaitable[T]], provider: Provider
    ) -> T:
        async with slots:
            return await run(provider)

    def _fault(
        self, error: Exception, deadline: Deadline, what: str, request_id: str | None, *, is_write: bool = False
    ) -> OpenProtoError:
        """Return the error to raise for one of the provider's or of the deadline's, with provider and request named."""
        if isinstance(error, OpenProtoError):
            fault = error
        elif deadline.expired:
            happened = _MAYBE_WRITTEN if is_write else "nothing was changed"
            fault = ProviderTimeoutError(
                f"{what} on {self.provider.name!r} did not finish within {self.options.timeout:g} s; {happened}. Raise "
                "timeout=, or look at the backend's load"
            )
        else:
            fault = ProviderError(f"{self.provider.name}: the provider's own timeout stopped {what}")
        fault.provider = fault.provider or self.provider.name
        fault.request_id = fault.request_id or request_id
        return fault

    async def _opened(self) -> None:
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_provider())
            # Marks a failure as seen even when every caller that waited for it was cancelled.
            self._opening.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Shared by all first callers: one of them giving up must not take the opening from the others.
        opening = self._opening
        try:
            await shielded(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if opening.cancelled() and not (task and task.cancelling()):
                # Nobody cancelled this caller: the client was closed while it was opening.
                raise RuntimeError(f"{self._owner} is closed") from None
            raise

    async def _open_provider(self) -> None:
        try:
            if self._guard is None:
                self._guard = await guard(self)
            if not MemoryInput.__pydantic_complete__:
                await _in_a_thread(build_models)
            await self.provider.open()
            self._is_open = True
        finally:
            # A failed opening is tried again by the next call; and a finished task would keep the loop alive.
            self._opening = None

    def _start_closing(self) -> asyncio.Task[None]:
        if self._closing is None or self._closing.cancelled():
            # What companions still have to do needs the verbs, so these are refused only afterwards.
            self._draining = bool(self.companions)
            self._closing = asyncio.create_task(self._shut_down())
            _closing_sessions.add(self._closing)
            self._closing.add_done_callback(_closing_sessions.discard)
        return self._closing

    async def _shut_down(self) -> None:
        ends_at = asyncio.get_running_loop().time() + self.options.close_timeout
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(ends_at - self.options.close_timeout / 2):
                await self._let_calls_end()
        self._draining = False
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends_at):
                    await self.provider.close()
        finally:
            self._deadlines.close()
            watcher, self._guard = self._guard, None
            if watcher is not None:
                with contextlib.suppress(RuntimeError):  # it is the guard that waits for this
                    await watcher.aclose()

    async def _let_calls_end(self) -> None:
        if self.companions:
            await asyncio.gather(*(companion.drain() for companion in self.companions))
            self._draining = False
        if self._opening is not None and not self._is_open:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._in_flight:
            self._idle = asyncio.Event()
            await self._idle.wait()

    def stats(self) -> Stats:
        """Return the figures of the calls so far."""
        return self._meter.stats(self._in_flight)

    def check_usable(self) -> None:
        """Raise RuntimeError for a client that is closed or belongs to another event loop."""
        if self._closed and not self._draining:
            raise RuntimeError(f"{self._owner} is closed")
        self.check_loop()
        if self._ended and not self._draining:
            raise RuntimeError(f"{self._owner} is closed, because its event loop or the process ends")

    def check_loop(self) -> None:
        """Bind the client to the running event loop, or raise RuntimeError when it belongs to another."""
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = weakref.ref(running)
        elif self._loop() is not running:
            raise RuntimeError(f"{self._owner} is bound to a different event loop")

    def after_fork(self) -> Session:
        """Return a session for a child process, and leave this one's provider to the parent that opened it."""
        child = Session(self.provider.fresh(), self._owner, self.options)
        child._closed, self._closed = self._closed, True
        return child

    def abandon(self, source: object) -> None:
        """Emit a ResourceWarning for a client that is collected while open, and close it."""
        if not self.left_open:
            return
        loop = self.home
        if loop is not None and not self._ended:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._start_closing)
        close = "close()" if self._owner == "Memory" else "aclose()"
        warnings.warn(
            f"unclosed {self._owner} on {self.provider.name!r}: call {close} or use a with block",
            ResourceWarning,
            source=source,
            stacklevel=3,
        )


_closing_sessions: set[asyncio.Task[None]] = set()
"""Keeps closing tasks alive: a client may be dropped right after a cancelled entry."""


async def _in_a_thread(function: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    ended = loop.create_future()

    def run() -> None:
        try:
            function()
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(settle)

    def settle() -> None:
        if not ended.done():
            ended.set_result(None)

    threading.Thread(target=run, name="openproto-models", daemon=True).start()
    await ended
