"""Many callers, few calls: texts that arrive while an embedder is busy form its next batch."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from itertools import islice
from typing import Any, NamedTuple, TypeAlias, cast

from openproto.embedding.protocol import Vector
from openproto.errors import OpenProtoError, PayloadTooLargeError, ProviderError

EmbedBatch: TypeAlias = "Callable[[list[str]], Awaitable[Sequence[Vector | ProviderError]]]"

# A batch is also bounded by its characters, so that a few huge texts do not hold up the small ones behind
# them.
_MAX_CHARACTERS = 200_000
# Errors that a single text of a batch can cause. InvalidRequestError is a ValueError.
_ONE_TEXT_ERRORS = (ValueError, TypeError, LookupError, PayloadTooLargeError)


class _Job(NamedTuple):
    texts: list[str]
    vectors: asyncio.Future[list[Vector]]


class Batcher:
    """Hands texts to `embed` in batches of at most `max_batch`, at most `width` batches at a time.

    An idle batcher starts at once, in the caller's task; it has tasks only while somebody waits.
    Cancelling a caller takes its texts out of the queue and disturbs nobody else. Made on the event loop that it
    serves.
    """

    def __init__(self, embed: EmbedBatch, *, model: str, width: int, max_batch: int) -> None:
        self._embed = embed
        self._model = model
        self._width = width
        self._max_batch = max_batch
        self._loop = asyncio.get_running_loop()
        # A batch serves several callers, so it does not run in the context of the first.
        self._context = copy_context()
        self._waiting: deque[_Job] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._alone: asyncio.Task[Any] | None = None
        self._stopped = False

    async def vectors(self, texts: Iterable[str]) -> list[Vector]:
        """Return the vectors of `texts` in order, or raise the first error.

        Only one batch of them stands in the queue at a time, so that a long list does not hold up other callers.
        """
        return [vector for part in self._parts(texts) for vector in await self.part(part)]

    def part(self, texts: list[str]) -> Awaitable[list[Vector]]:
        """Return the vectors of what is no more than a batch, or raise the first error."""
        if self._stopped:
            raise RuntimeError("the embedder is closed; make a new one")
        is_idle = not (self._waiting or self._workers or self._alone)
        return self._embed_alone(texts) if is_idle else self._queue(texts)

    async def stop(self) -> None:
        """Fail whatever is not embedded yet and end the work."""
        self._stopped = True
        _abandon(self._waiting)
        for worker in self._workers:
            worker.cancel()
        if self._alone is not None:
            self._alone.cancel()  # which it sees as the RuntimeError that the others get
        await asyncio.gather(*self._workers, return_exceptions=True)

    async def _queue(self, texts: list[str]) -> list[Vector]:
        job = _Job(texts, self._loop.create_future())
        self._waiting.append(job)
        self._start_worker()
        return await job.vectors

    async def _embed_alone(self, texts: list[str]) -> list[Vector]:
        """Embed in the caller's task: where nobody else waits, another task costs more than embedding does."""
        self._alone = caller = cast("asyncio.Task[Any]", asyncio.current_task())
        try:
            answers = await self._embed(texts)
        except asyncio.CancelledError:
            if caller.uncancel() if self._stopped else caller.cancelling():
                raise
            raise _stopped_early() from None
        except Exception as error:
            raise self._own_error(error) from error
        finally:
            self._alone = None
            if self._waiting:
                self._start_worker()
        return self._checked(answers)

    def _start_worker(self) -> None:
        while self._waiting and self._waiting[0].vectors.done():
            self._waiting.popleft()
        if self._waiting and len(self._workers) + (self._alone is not None) < self._width:
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

    def _parts(self, texts: Iterable[str]) -> Iterator[list[str]]:
        part: list[str] = []
        characters = 0
        for text in texts:
            part.append(text)
            characters += len(text)
            if len(part) == self._max_batch or characters >= _MAX_CHARACTERS:
                yield part
                part, characters = [], 0
        if part:
            yield part

    def _next_batch(self) -> list[_Job]:
        batch: list[_Job] = []
        count = characters = 0
        while self._waiting and characters < _MAX_CHARACTERS:
            texts = self._waiting[0].texts
            count += len(texts)
            if count > self._max_batch:
                break
            batch.append(self._waiting.popleft())
            characters += sum(map(len, texts))
        return batch

    async def _answer(self, batch: list[_Job]) -> None:
        jobs = [job for job in batch if not job.vectors.done()]
        if not jobs:
            return
        texts = [text for job in jobs for text in job.texts]
        answers = await self._answers(texts)
        if len(jobs) > 1 and isinstance(answers[0], _ONE_TEXT_ERRORS):
            # One bad text must not sink the others: halving finds it in few calls.
            await self._answer(jobs[: len(jobs) // 2])
            await self._answer(jobs[len(jobs) // 2 :])
            return
        remaining = iter(answers)
        for job in jobs:
            own = list(islice(remaining, len(job.texts)))
            if not job.vectors.done():
                self._settle(job, own)

    async def _answers(self, texts: list[str]) -> Sequence[Vector | Exception]:
        try:
            return await self._embed(texts)
        except Exception as error:
            return [error] * len(texts)

    def _settle(self, job: _Job, answers: Sequence[Vector | Exception]) -> None:
        try:
            job.vectors.set_result(self._checked(answers))
        except OpenProtoError as error:
            job.vectors.set_exception(error)

    def _checked(self, answers: Sequence[Vector | Exception]) -> list[Vector]:
        vectors: list[Vector] = []
        for answer in answers:
            if isinstance(answer, Exception):
                raise self._own_error(answer) from answer
            vectors.append(answer)
        return vectors

    def _own_error(self, error: Exception) -> OpenProtoError:
        # Every caller gets another instance, because a shared one would collect all their tracebacks. The
        # text of a foreign error may quote the input, so only its class is named.
        return (
            copy.copy(error)
            if isinstance(error, OpenProtoError)
            else ProviderError(f"embedder {self._model!r} failed with {type(error).__name__}: look at its options")
        )


def _abandon(jobs: Iterable[_Job]) -> None:
    for job in jobs:
        if not job.vectors.done():
            job.vectors.set_exception(_stopped_early())


def _stopped_early() -> RuntimeError:
    return RuntimeError("the embedder stopped before this text was embedded; open a new client")
