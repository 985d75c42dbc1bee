"""What a worker of the queue does: turns become memories, memories are stored in batches, each turn gets a verdict."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from openproto import InvalidRequestError, OpenProtoError, PayloadTooLargeError
from openproto.blocking.threads import Threads
from openproto.client.retry import with_retries
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.llm.sifting import Keep
from openproto.integrations.llm.turns import BatchExtractor, Extracted, Extractor, Turn, kept_of, memory_fields
from openproto.models import OnDuplicate

Verdict: TypeAlias = Literal["stored", "skipped", "failed", "dropped"]

_NOT_TAKEN = (InvalidRequestError, PayloadTooLargeError)
"""What a backend says of content that it will never take, such as a text that is too short for it."""


_SHORT = 4_000
"""Characters up to which sifting a turn takes less time than a thread's hand-over."""


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
    jobs: Sequence[Job]
    fields: dict[str, Any]


class Storing:
    """Extracts from turns and stores in batches, on the memory's loop; reports to `failed` and `retried`."""

    def __init__(
        self,
        home: BoundClient,
        extract: Extractor | None,
        keep: Keep,
        on_duplicate: OnDuplicate,
        max_workers: int,
        batch_size: int,
        retries: int,
        failed: Callable[[str, Exception], None],
        retried: Callable[[], None],
    ) -> None:
        self._home = home
        self._extract = extract
        self._keep: Keep = keep
        self._on_duplicate: OnDuplicate = on_duplicate
        self._looks: bool | None = None
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
        if isinstance(self._extract, BatchExtractor):
            self._extract.close()

    async def store(self, jobs: Sequence[Job]) -> None:
        """Store what is to be kept of each job's turn and set its verdict."""
        if isinstance(self._extract, BatchExtractor):
            groups: dict[tuple[str, str | None], list[Job]] = {}
            for job in jobs:
                groups.setdefault((job.turn.user_id, job.turn.scope), []).append(job)
            making = [self._items_of_all(self._extract, group) for group in groups.values()]
        else:
            making = [self._items(job) for job in jobs]
        items = [item for found in await asyncio.gather(*making) for item in found]
        for start in range(0, len(items), self._batch_size):
            await self._store_batch(items[start : start + self._batch_size])

    async def _items(self, job: Job) -> list[_Item]:
        try:
            found = await self._extracted(job.turn)
            items = [_Item([job], memory_fields(job.turn, at, item)) for at, item in enumerate(found)]
        except Exception as error:
            # Storing the turn as it is instead might keep what the extractor exists to leave out.
            self._failed("the extractor failed", error)
            return []
        job.parts = len(items)
        return items

    async def _items_of_all(self, extract: BatchExtractor, jobs: Sequence[Job]) -> list[_Item]:
        """Return what is to be stored of turns of one user, each item for all of them."""
        turns = [job.turn for job in jobs]
        async with self._extracting:
            found = await extract.extract(turns, self._home.client)
        if found.error is not None:
            self._failed("the extractor failed", found.error)
            if not found.items:
                return []
        ended = datetime.now(UTC)
        for id in found.ended:
            try:
                await self._home.client.update(id, user_id=turns[0].user_id, valid_to=ended)
            except OpenProtoError as error:
                self._failed("a memory that is no longer true could not be ended", error)
        for job in jobs:
            job.parts = len(found.items)
        return [_Item(jobs, memory_fields(turns[-1], at, item)) for at, item in enumerate(found.items)]

    async def _extracted(self, turn: Turn) -> Extracted:
        extract = self._extract
        if extract is None:
            if len(turn.user or "") + len(turn.reply or "") <= _SHORT and not callable(self._keep):
                return kept_of(turn, self._keep)
            return await self._threads(lambda: list(kept_of(turn, self._keep)))
        async with self._extracting:
            if inspect.iscoroutinefunction(extract):
                return await cast(Callable[[Turn], Awaitable[Extracted]], extract)(turn)
            # A list, so that a generator runs in the thread too.
            return await self._threads(lambda: list(cast(Callable[[Turn], Extracted], extract)(turn)))

    async def _provider_looks(self) -> bool:
        """Return whether the provider can look for duplicates; asked once, because it may be a request to a server."""
        if self._looks is None:
            support = (await self._home.client.capabilities()).x_openproto.support
            self._looks = support.get("on_duplicate", "none") != "none"
        return self._looks

    async def _store_batch(self, batch: list[_Item]) -> None:
        left = batch

        async def attempt() -> None:
            nonlocal left
            default = {"on_duplicate": self._on_duplicate if await self._provider_looks() else "keep"}
            outcomes = await self._home.client.add_many([{**default, **item.fields} for item in left])
            again: list[_Item] = []
            reasons: list[OpenProtoError] = []
            for item, outcome in zip(left, outcomes, strict=True):
                if isinstance(outcome, OpenProtoError) and outcome.retryable:
                    again.append(item)
                    reasons.append(outcome)
                else:
                    for job in item.jobs:
                        self._judge(job, outcome)
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
