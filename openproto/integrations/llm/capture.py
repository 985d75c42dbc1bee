"""The queue between LLM calls and the memory: bounded in length and in concurrency, and nobody waits for its work.

Turns come from any thread or loop. Workers, tasks on the memory's own loop, make memories of them and store these in
batches; they are started by a turn and end when there is none left, so an idle queue costs nothing.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
import time
import weakref
from contextvars import Context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal, Self, TypeAlias, get_args

from openproto import AsyncMemory, Memory
from openproto.fields import check_seconds, check_whole
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.llm.backlog import Backlog
from openproto.integrations.llm.faults import FaultLog
from openproto.integrations.llm.sifting import Keep
from openproto.integrations.llm.stats import CaptureStats
from openproto.integrations.llm.storing import Job, Storing
from openproto.integrations.llm.turns import BatchExtractor, Extractor, Turn
from openproto.models import OnDuplicate

Policy: TypeAlias = Literal["drop", "wait"]

GATHER_SECONDS = 0.5
"""How long an extractor of batches waits for more turns before it takes those that there are."""

TOGETHER_SECONDS = 0.05
"""How long turns wait for the batch that is being stored, to be the next together, before another worker takes them.

A batch of one costs the backend as much as one of ten, and a hundred calls that end one by one would make it busy with
sixty of them while it is asked for what the other calls recall.
"""

EXIT_TIMEOUT = 5.0
"""Seconds that all queues together may take to store what is left when the interpreter exits."""


class CaptureQueue:
    """Stores turns in the background.

    Args:
        memory: Where they go. A `Memory` takes turns from every thread and loop, an `AsyncMemory` from its own loop.
            Closing it first stores what the queue holds, for as long as half of its `close_timeout`.
        extract: Makes memories of a turn: `facts(client, model=...)`, or a function that returns texts, mappings of
            `add`'s keywords, or `MemoryInput`s; none to skip it. A plain function runs in a thread, a coroutine
            function on the memory's loop; at most `max_workers` at once.
        keep: Without `extract`, what is kept of a turn: "user", the default, what the user stated, without questions,
            requests, and greetings; "both" all that the user said and the model replied, one memory each; or a
            function of the role and the text that says whether to keep it. A reply that repeats what was recalled for
            it is never kept.
        on_duplicate: What becomes of a memory that the user's memories say already, as in `add`; "keep" with a provider
            that cannot look.
        max_workers: Batches being stored at once.
        batch_size: Memories in one batch, and turns that a worker takes at once, at most.
        maxsize: Turns that may wait to be stored.
        policy: What a turn does that finds the queue full: `drop` counts and forgets it, `wait` makes the LLM call that
            it belongs to return only when there is room.
        wait_timeout: Seconds after which a turn that waits for room is dropped all the same.
        retries: How often a batch is repeated that the backend is too busy for, or unavailable to.
    """

    def __init__(
        self,
        memory: Memory | AsyncMemory,
        *,
        extract: Extractor | None = None,
        keep: Keep | None = None,
        on_duplicate: OnDuplicate = "supersede",
        max_workers: int = 8,
        batch_size: int = 50,
        maxsize: int = 1000,
        policy: Policy = "drop",
        wait_timeout: float = 30.0,
        retries: int = 3,
    ) -> None:
        check_whole(max_workers=max_workers, batch_size=batch_size, maxsize=maxsize)
        check_whole(0, retries=retries)
        check_seconds(wait_timeout=wait_timeout, or_zero=True)
        if policy not in ("drop", "wait"):
            raise ValueError("policy must be 'drop' or 'wait'")
        if extract is not None and keep is not None:
            raise ValueError("extract= decides what is kept: leave keep= out")
        if on_duplicate not in get_args(OnDuplicate):
            raise ValueError(f"on_duplicate must be one of {get_args(OnDuplicate)}")
        if keep not in (None, "user", "both") and not callable(keep):
            raise ValueError("keep must be 'user', 'both', or a function of the role and the text")
        self.home = BoundClient(memory)
        self._faults = FaultLog()
        self._storing = Storing(
            self.home,
            extract,
            keep or "user",
            on_duplicate,
            max_workers,
            batch_size,
            retries,
            self.report,
            self._retried,
        )
        # One worker for an extractor of batches: what comes while it is at work is its next batch, and of two at once
        # neither would know what the other finds.
        self._gathers = isinstance(extract, BatchExtractor)
        self._max_workers = 1 if self._gathers else max_workers
        self._batch_size = batch_size
        self._maxsize = maxsize
        self._waits = policy == "wait"
        self._wait_timeout = wait_timeout
        self._closed = False
        self._start_afresh()
        _queues.add(self)

    @classmethod
    def of(cls, memory: Memory | AsyncMemory) -> CaptureQueue:
        """Return the queue that `memory` has, or a new one with the default settings."""
        companions = BoundClient(memory).client._session.companions
        queues = (companion for companion in companions if isinstance(companion, CaptureQueue))
        return next((queue for queue in queues if not queue._closed), None) or cls(memory)

    def put(self, turn: Turn) -> bool:
        """Take a turn and return whether it was taken; may block, where the policy is to wait."""
        job = self._admit(turn, may_wait=True)
        try:
            return job.admitted.result(self._wait_timeout)
        except TimeoutError:
            return self._give_up(job)
        except BaseException:
            self._give_up(job)
            raise

    async def aput(self, turn: Turn) -> bool:
        """Take a turn and return whether it was taken; may wait, where that is the policy."""
        job = self._admit(turn, may_wait=True)
        if not job.admitted.done():
            admitted = asyncio.wrap_future(job.admitted)
            try:
                await asyncio.wait([admitted], timeout=self._wait_timeout)
            finally:
                admitted.cancel()
                self._give_up(job)
        return job.admitted.result()

    def put_nowait(self, turn: Turn) -> None:
        """Take a turn if there is room for it; never waits, not even for a lock, so a finalizer may call it."""
        self._left.put(turn)
        # A loop that has ended stores nothing more; the turn is counted as dropped when the left ones are taken in.
        with contextlib.suppress(RuntimeError):
            self.home.loop().call_soon_threadsafe(self._spawn, context=Context())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until what was captured before is stored and return whether all that ever was captured is.

        False when `timeout` seconds were not enough, or when any turn failed or was dropped; `stats` says which.
        """
        self._check_not_on_loop("wait() would block the loop that stores; use `await flush()`")
        jobs = self._snapshot()
        concurrent.futures.wait([job.settled for job in jobs], timeout)
        return self._all_stored(jobs)

    async def flush(self, timeout: float | None = None) -> bool:
        """Do what `wait` does, without blocking the loop."""
        jobs = self._snapshot()
        settled = [asyncio.wrap_future(job.settled) for job in jobs]
        try:
            if settled:
                await asyncio.wait(settled, timeout=timeout)
        finally:
            for future in settled:
                future.cancel()
        return self._all_stored(jobs)

    def close(self, timeout: float | None = 10.0) -> bool:
        """Take no more turns, and store the rest within `timeout` seconds or drop it; returns what `wait` does."""
        self._check_not_on_loop("close() would block the loop that stores; use `await aclose()`")
        self._take_no_more()
        try:
            return self.wait(timeout)
        finally:
            self._abandon()

    async def aclose(self, timeout: float | None = 10.0) -> bool:
        """Do what `close` does, without blocking the loop."""
        self._take_no_more()
        try:
            return await self.flush(timeout)
        finally:
            self._abandon()

    async def drain(self) -> None:
        """Close, in the time that the closing memory allows."""
        await self.aclose(timeout=None)

    def stats(self) -> CaptureStats:
        """The counts as they are now."""
        self._take_in()
        return self._backlog.stats()

    def report(self, what: str, error: Exception) -> None:
        """Note a fault that must not reach the LLM call: for `stats`, and for the log."""
        self._backlog.note(error)
        self._faults.report(what, error)

    def count_recall(self, error: Exception | None = None) -> None:
        """Count a recall that answered, or that ended in `error`."""
        if error is None:
            self._backlog.count("recalled")
        else:
            self._backlog.count("recall_failed")
            self.report("recall failed, the LLM call goes on without it", error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _start_afresh(self) -> None:
        """Start with nothing waiting: at first, and in a child process, whose parent stores what it has captured."""
        self._pid = os.getpid()
        self._backlog = Backlog(self._maxsize)
        self._left: SimpleQueue[Turn] = SimpleQueue()
        self._taking_in = threading.Lock()
        self._workers: set[asyncio.Task[None]] = set()
        self._at_work = 0
        self._storing.start_afresh()
        self.home.client._session.companions.append(self)

    def _admit(self, turn: Turn, *, may_wait: bool) -> Job:
        if self._pid != os.getpid():
            self._start_afresh()
        job = None if self._closed else self._backlog.admit(turn, may_wait=may_wait and self._waits)
        if job is None:
            job = Job(turn)
            self._drop([job], "the queue is closed" if self._closed else "the queue is full")
        elif job.admitted.done():
            self._wake()
        return job

    def _take_in(self) -> None:
        """Admit the turns that were left where nothing could wait."""
        # Locked as a whole: a thread that finds nothing left must also find admitted what another has just taken.
        with self._taking_in, contextlib.suppress(Empty):
            while True:
                self._admit(self._left.get_nowait(), may_wait=False)

    def _take_no_more(self) -> None:
        self._take_in()
        self._closed = True

    def _give_up(self, job: Job) -> bool:
        """End a wait for room and return whether there was room after all."""
        if self._backlog.withdraw(job):
            self._drop([job], "the queue stayed full")
        return job.admitted.result()

    def _wake(self) -> None:
        try:
            # Not in the caller's context: a worker serves many users, and outlives the request that started it.
            self.home.loop().call_soon_threadsafe(self._spawn, context=Context())
        except RuntimeError:
            self._abandon("the event loop of the memory has ended")

    def _spawn(self) -> None:
        self._take_in()
        if self._backlog and len(self._workers) < self._max_workers:
            worker = asyncio.create_task(self._work(), name="openproto-capture")
            self._workers.add(worker)
            worker.add_done_callback(self._retire)

    def _retire(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled():
            # A turn may have come after this worker looked for the last time, and found all workers still counted.
            self._spawn()

    async def _work(self) -> None:
        while self._backlog:
            if self._gathers:
                await asyncio.sleep(GATHER_SECONDS)
            elif self._at_work and len(self._backlog) < self._batch_size:
                await asyncio.sleep(TOGETHER_SECONDS)
            jobs = self._backlog.take(self._batch_size)
            self._at_work += 1
            try:
                await self._storing.store(jobs)
            except asyncio.CancelledError:
                self._faults.report("captured turns were cut off while they were being stored")
                raise
            except Exception as error:  # whatever it is, the turns to come must still be stored
                self.report("a turn could not be stored", error)
            finally:
                self._at_work -= 1
                for job in jobs:
                    self._backlog.settle(job, job.verdict)

    def _drop(self, jobs: list[Job], why: str) -> None:
        for job in jobs:
            self._backlog.settle(job, "dropped")
            self._faults.report(f"a captured turn was dropped because {why}")

    def _abandon(self, why: str = "the queue is closed") -> None:
        """Drop what waits and cancel what runs: the memory is being closed, or its loop is gone."""
        self._drop(self._backlog.clear(), why)
        for worker in tuple(self._workers):
            if not worker.get_loop().is_closed():
                worker.get_loop().call_soon_threadsafe(worker.cancel)
        self._storing.close()

    def _snapshot(self) -> list[Job]:
        self._take_in()
        return self._backlog.unsettled()

    def _all_stored(self, jobs: list[Job]) -> bool:
        stats = self.stats()
        return all(job.settled.done() for job in jobs) and not (stats.failed or stats.dropped)

    def _retried(self) -> None:
        self._backlog.count("retried")

    def _check_not_on_loop(self, what: str) -> None:
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            return
        if running is self.home.loop():
            raise RuntimeError(what)


_queues: weakref.WeakSet[CaptureQueue] = weakref.WeakSet()


def _store_the_rest() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT
    for queue in tuple(_queues):
        stats = queue.stats()
        if stats.waiting or stats.in_flight:
            # The loop of an AsyncMemory no longer runs; the background loop of a Memory still does.
            queue.close(max(0.0, deadline - time.monotonic()) if queue.home.is_shared else 0.0)


# Unlike atexit, this runs while thread pools still take work, which most backends need in order to store anything.
getattr(threading, "_register_atexit", atexit.register)(_store_the_rest)
