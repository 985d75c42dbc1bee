"""What a worker of the queue does: turns become memories, memories are stored in batches, each turn gets a verdict."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from openproto.blocking.threads import Threads
from openproto.client.retry import with_retries
from openproto.errors import InvalidRequestError, OpenProtoError, PayloadTooLargeError
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.llm.turns import Extracted, Extractor, Turn, memory_fields, whole_turn

Verdict: TypeAlias = Literal["stored", "skipped", "failed", "dropped"]

_NOT_TAKEN = (InvalidRequestError, PayloadTooLargeError)
"""What a backend says of content that it will never take, such as a text that is too short for it."""


class Job:
    """A turn on its way: whether the queue took it, whether it is settled, and how."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.parts: int | None = None
        self.verdicts: list[Verdict] = []
        self.admitted: Future[bool] = Future()
        self.settled: Future[None] = Future()
        # A caller that stops waiting cancels its view of these; marked as running, they cannot be cancelled.
        self.admitted.set_running_or_notify_cancel()
        self.settled.set_running_or_notify_cancel()

    @property
    def verdict(self) -> Verdict:
        """The verdict on the whole turn; a part without one, as after a cancellation, counts as failed."""
        if self.parts is None or len(self.verdicts) < self.parts or "failed" in self.verdicts:
            return "failed"
        return "stored" if "stored" in self.verdicts else "skipped"


class _Item(NamedTuple):
    job: Job
    fields: dict[str, Any]


class Storing:
    """Extracts from turns and stores in batches, on the memory's loop; tells `failed` and `retried`."""

    def __init__(
        self,
        home: BoundClient,
        extract: Extractor,
        max_workers: int,
        batch_size: int,
        retries: int,
        failed: Callable[[str, Exception], None],
        retried: Callable[[], None],
    ) -> None:
        self._home = home
        self._extract = extract
        self._max_workers = max_workers
        self._batch_size = batch_size
        self._retries = retries
        self._failed = failed
        self._retried = retried

    def start_afresh(self) -> None:
        """Make what belongs to this process, and to one loop."""
        self._extracting = asyncio.Semaphore(self._max_workers)
        self._threads = Threads(self._max_workers, "openproto-extract")

    def close(self) -> None:
        """Let go of the extractor's threads."""
        self._threads.close()

    async def store(self, jobs: Sequence[Job]) -> None:
        """Store what is to be kept of each job's turn and set its verdict."""
        items = [item for found in await asyncio.gather(*map(self._items, jobs)) for item in found]
        for start in range(0, len(items), self._batch_size):
            await self._store_batch(items[start : start + self._batch_size])

    async def _items(self, job: Job) -> list[_Item]:
        try:
            found = await self._extracted(job.turn)
            items = [_Item(job, memory_fields(job.turn, at, item)) for at, item in enumerate(found)]
        except Exception as error:
            # Storing the turn as it is instead might keep what the extractor exists to leave out.
            self._failed("the extractor failed", error)
            return []
        job.parts = len(items)
        return items

    async def _extracted(self, turn: Turn) -> Extracted:
        extract = self._extract
        if extract is whole_turn:
            return whole_turn(turn)
        async with self._extracting:
            if inspect.iscoroutinefunction(extract):
                return cast(Extracted, await extract(turn))
            # A list, so that a generator runs in the thread too.
            return await self._threads(lambda: list(cast(Callable[[Turn], Extracted], extract)(turn)))

    async def _store_batch(self, batch: list[_Item]) -> None:
        left = batch

        async def attempt() -> None:
            nonlocal left
            outcomes = await self._home.client.add_many([item.fields for item in left])
            again: list[_Item] = []
            reasons: list[OpenProtoError] = []
            for item, outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, OpenProtoError) and outcome.retryable:
                    again.append(item)
                    reasons.append(outcome)
                else:
                    self._judge(item.job, outcome)
            left = again
            if reasons:
                raise max(reasons, key=lambda error: error.retry_after or 0.0)

        try:
            await with_retries(attempt, self._retries, self._retried)
        except Exception as error:
            self._failed("captured turns could not be stored", error)

    def _judge(self, job: Job, outcome: object) -> None:
        if isinstance(outcome, _NOT_TAKEN):
            job.verdicts.append("skipped")
        elif isinstance(outcome, OpenProtoError):
            job.verdicts.append("failed")
            self._failed("a captured turn could not be stored", outcome)
        else:
            job.verdicts.append("stored")
