"""Many callers, few calls: texts that arrive while an embedder is busy form its next batch."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import copy_context
from typing import NamedTuple, TypeAlias

from openproto.embedding.protocol import Vector
from openproto.errors import OpenProtoError, PayloadTooLargeError, ProviderError

EmbedBatch: TypeAlias = "Callable[[list[str]], Awaitable[Sequence[Vector | ProviderError]]]"

# A batch is also bounded by its characters, so that a few huge texts do not hold up the small ones behind
# them.
_MAX_CHARACTERS = 200_000
# Errors that a single text of a batch can cause. InvalidRequestError is a ValueError.
_ONE_TEXT_ERRORS = (ValueError, TypeError, LookupError, PayloadTooLargeError)


class _Job(NamedTuple):
    text: str
    vector: asyncio.Future[Vector]


class Batcher:
    """Hands texts to `embed` in batches of at most `max_batch`, at most `width` batches at a time.

    An idle batcher starts at once. Tasks exist only while there is work. Cancelling a caller takes its texts
    out of the queue and disturbs nobody else. Made on the event loop that it serves.
    """

    def __init__(self, embed: EmbedBatch, *, model: str, width: int, max_batch: int) -> None:
        self._embed = embed
        self._model = model
        self._width = width
        self._max_batch = max_batch
        self._loop = asyncio.get_running_loop()
        # A batch serves several callers, so it does not run in the context of whoever came first.
        self._context = copy_context()
        self._waiting: deque[_Job] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def vectors(self, texts: Iterable[str]) -> list[Vector]:
        """Return the vectors of `texts` in order, or raise the first error."""
        if self._stopped:
            raise RuntimeError("the embedder is closed")
        jobs = [_Job(text, self._loop.create_future()) for text in texts]
        self._waiting.extend(jobs)
        self._start_worker()
        if len(jobs) == 1:
            return [await jobs[0].vector]
        return await asyncio.gather(*(job.vector for job in jobs))

    async def stop(self) -> None:
        """Fail whatever is not embedded yet and end the work."""
        self._stopped = True
        _abandon(self._waiting)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _start_worker(self) -> None:
        while self._waiting and self._waiting[0].vector.done():
            self._waiting.popleft()
        if self._waiting and len(self._workers) < self._width:
            worker = self._loop.create_task(self._work(), name="openproto-embed", context=self._context)
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        # Usually nothing waits; but an embedder may raise anything, CancelledError too, and end its worker.
        self._start_worker()

    async def _work(self) -> None:
        while batch := self._next_batch():
            try:
                await self._answer(batch)
            finally:
                _abandon(batch)

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        characters = 0
        while self._waiting and len(batch) < self._max_batch and characters < _MAX_CHARACTERS:
            job = self._waiting.popleft()
            batch.append(job)
            characters += len(job.text)
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        jobs = [job for job in batch if not job.vector.done()]
        if not jobs:
            return
        answers: Sequence[Vector | Exception]
        try:
            answers = await self._embed([job.text for job in jobs])
        except Exception as error:
            answers = [error] * len(jobs)
        if len(jobs) > 1 and isinstance(answers[0], _ONE_TEXT_ERRORS):
            # One bad text must not sink the others: halving finds it in few calls.
            await self._answer(jobs[: len(jobs) // 2])
            await self._answer(jobs[len(jobs) // 2 :])
            return
        for job, answer in zip(jobs, answers, strict=True):
            if job.vector.done():
                continue
            if isinstance(answer, Exception):
                job.vector.set_exception(self._own_error(answer))
            else:
                job.vector.set_result(answer)

    def _own_error(self, error: Exception) -> OpenProtoError:
        # Every caller gets an instance of its own, for a shared one would collect all their tracebacks. The
        # text of a foreign error may quote the input, so only its class is told.
        own = (
            copy.copy(error)
            if isinstance(error, OpenProtoError)
            else ProviderError(f"embedder {self._model!r} failed: {type(error).__name__}")
        )
        own.__cause__ = error
        return own


def _abandon(jobs: Iterable[_Job]) -> None:
    for job in jobs:
        if not job.vector.done():
            job.vector.set_exception(RuntimeError("the embedder stopped before this text was embedded"))
