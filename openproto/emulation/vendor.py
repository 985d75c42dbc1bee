"""`Vendor`: what an adapter states of its backend, and the lifecycle that follows from it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from datetime import UTC, datetime
from typing import Any, ClassVar, Generic, NamedTuple, ParamSpec, TypeVar

from openproto.blocking.threads import Threads
from openproto.emulation.answers import another_users
from openproto.emulation.locks import KeyedLocks, Name
from openproto.emulation.matching import has_ended, is_current
from openproto.emulation.said import Said, said
from openproto.emulation.stored import Stored
from openproto.emulation.traits import Traits
from openproto.errors import OpenProtoError
from openproto.fanout import gather_all, gather_bounded, shielded
from openproto.models import MemoryRecord
from openproto.provider import KeyedInput, Outcomes, Provider
from openproto.requests import MemoryInput, SearchQuery

B = TypeVar("B")
P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", bound="Stored | MemoryRecord | OpenProtoError")

_locks = KeyedLocks()

_MOST_SCANS = 8

_MOST_ASKED = 1_000
"""Characters of a new memory that the vendor's search is asked with, and how many hits are looked at."""
_MOST_LOOKED_AT = 20


class Ranked(NamedTuple):
    """What the vendor's search answered, best first, and whether it holds everything that the user has."""

    hits: Sequence[tuple[Stored, float]]
    complete: bool
    exhausted: bool = False
    """Whether the vendor would find no more if it were asked for more: the rest it does not know, or not yet."""


class Vendor(Provider, ABC, Generic[B]):
    """A provider over a backend `B`, which is what `connect` returns: the SDK's client and what is built on it."""

    sdk: ClassVar[str] = ""
    """The distribution that the adapter uses, if any, and the version of it that the adapter was tested with."""
    tested_with: ClassVar[str] = ""

    traits: Traits = Traits()
    """What the vendor can do; an instance whose options change that replaces it."""

    def __init__(self) -> None:
        self._backend: B | None = None
        self._was_open = False
        self._finishing: set[asyncio.Task[Any]] = set()

    @abstractmethod
    async def connect(self) -> B:
        """Return the backend; raise a typed error where it cannot be had, and leave nothing open then."""

    async def disconnect(self, backend: B) -> None:
        """Release what `connect` acquired; calls that use it may fail."""

    @property
    def backend(self) -> B:
        """The backend of an open provider."""
        if self._backend is None:
            raise self.closed_meanwhile() if self._was_open else self.not_open()
        return self._backend

    async def open(self) -> None:
        """Connect, and check that the backend works; after a failure the provider may be opened again."""
        try:
            self._backend = await self.connect()
            await self.check()
        except BaseException:
            await self.close()
            raise
        self._was_open = True

    async def close(self) -> None:
        """Stop the writes that are under way, and disconnect."""
        backend, self._backend = self._backend, None
        try:
            for task in self._finishing:
                task.cancel()
            if self._finishing:
                await asyncio.wait(self._finishing, timeout=self.traits.finish_seconds)
        finally:
            if backend is not None:
                await self.disconnect(backend)

    async def check(self) -> None:
        """Ask the backend for something that it answers only while it works; by default nothing is asked."""

    async def health(self) -> None:
        """Return if the backend answers now."""
        _ = self.backend
        await self.check()

    async def describe(self) -> dict[str, str]:
        """Return the version of the SDK."""
        from importlib.metadata import version  # which takes as long to import as an adapter

        return {self.sdk: version(self.sdk)} if self.sdk else {}

    # What an adapter says of its vendor. Each raises typed errors only.

    @abstractmethod
    def store_name(self) -> str:
        """Return what two providers of one process share when they work on the same memories."""

    @abstractmethod
    async def create(self, item: MemoryInput, key: str) -> Stored:
        """Write a new memory, by `Stored.new`, and return it under the id it has for good."""

    async def create_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Write up to `most_created` new memories in one request, each with its outcome."""
        raise NotImplementedError

    @abstractmethod
    async def find(self, id: str, user_id: str | None) -> Stored | None:
        """Return the memory of that id, of whatever user where `user_id` is None; None where there is none."""

    @abstractmethod
    async def find_key(self, user_id: str, key: str) -> Stored | None:
        """Return the user's memory that was added under this idempotency key, if it is still there."""

    async def find_named(self, user_id: str, key: str) -> Stored | None:
        """Return the user's memory that bears this key as its name; by default looked for among all of them."""
        async with aclosing(self.scan(user_id)) as memories:
            async for stored in memories:
                if self._owned(stored, user_id).record.key == key:
                    return stored
        return None

    @abstractmethod
    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Put `new` in the place of `old`, under the same id, and return it as it is then."""

    @abstractmethod
    async def remove(self, stored: Stored) -> bool:
        """Remove the memory for good; return False where it was gone already."""

    async def remove_many(self, chosen: Sequence[Stored]) -> int:
        """Remove up to `most_removed` memories of one user in one request, and return how many were there."""
        return sum([await self.remove(stored) for stored in chosen])

    async def remove_all(self, user_id: str) -> int:
        """Remove every memory of the user and return how many there were; where the traits say that it can."""
        raise NotImplementedError

    @abstractmethod
    def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        """Yield every memory of the user; those created after `until` may be left out."""

    async def owners(self) -> Collection[str]:
        """Return the users that have memories; where the traits say that the vendor can."""
        raise NotImplementedError

    @abstractmethod
    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        """Return the vendor's best `count` hits; filters of the query may be applied, and are applied again here."""

    async def _may_say(self, item: MemoryInput) -> Sequence[MemoryRecord]:
        """Return current memories of the user that may say what `item` says, newest first.

        They are those that this process has read or written, and those that the vendor's search finds, which others
        may have written.
        """
        user_id = item.user_id
        query = SearchQuery(query=" ".join(item.content.split())[:_MOST_ASKED], user_id=user_id, limit=_MOST_LOOKED_AT)
        known = await self._said_by(user_id)
        for stored, _ in (await self.rank(query, min(_MOST_LOOKED_AT, self.traits.most_ranked))).hits:
            known.note(self._owned(stored, user_id).record)
        ids = known.ids(item)
        found = await gather_all(*(self.find(id, user_id) for id in ids))
        now = datetime.now(UTC)
        known.forget(item, [id for id, one in zip(ids, found, strict=True) if one is None or has_ended(one, now)])
        records = [one.shown for one in found if one and is_current(self._owned(one, user_id), now)]
        return sorted(records, key=lambda record: (record.created_at, record.id), reverse=True)

    async def _said_by(self, user_id: str) -> Said:
        """Return what the user said, after reading all of it where that was not done lately."""
        async with self._locked_by([("a listing", user_id)]):
            known = said.get((self.store_name(), user_id))
            if known is None:
                said.put((self.store_name(), user_id), known := Said())  # before reading: it takes what is written then
            if not known.is_whole:
                async with aclosing(self.scan(user_id)) as memories:
                    async for stored in memories:
                        known.note(self._owned(stored, user_id).record)
                known.is_whole = True
        return known

    def _noted(self, outcome: N) -> N:
        """Return what came of a write, after taking note of what the memory says now."""
        record = outcome.record if isinstance(outcome, Stored) else outcome
        if isinstance(record, MemoryRecord) and (known := said.get((self.store_name(), record.user_id))) is not None:
            known.note(record)
        return outcome

    def _locked_by(self, names: Sequence[Name]) -> AbstractAsyncContextManager[None]:
        return _locks.hold([(self.store_name(), *name) for name in names])

    def _locked(self, *ids: str) -> AbstractAsyncContextManager[None]:
        return self._locked_by([("memory", id) for id in ids])

    def _owned(self, stored: Stored, user_id: str) -> Stored:
        """Raise ProviderError for another user's row: whatever the vendor's filter did, it goes no further."""
        if stored.record.user_id != user_id:
            raise another_users("the backend")
        return stored

    async def _finish_despite_cancellation(self, work: Coroutine[Any, Any, T]) -> T:
        """Await `work`, which is several requests; when the caller is cancelled, it is still brought to its end."""
        try:
            _ = self.backend
        except BaseException:
            work.close()
            raise
        task = asyncio.create_task(work)
        self._finishing.add(task)
        task.add_done_callback(self._finished)
        try:
            return await shielded(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):
                raise self.closed_meanwhile() from None  # nobody cancelled the caller
            asyncio.get_running_loop().call_later(self.traits.finish_seconds, task.cancel)
            raise

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._finishing.discard(task)
        if not task.cancelled():
            task.exception()  # marks a failure as seen even when the caller has left


async def first_owners(scans: Iterable[AsyncGenerator[Stored, None]]) -> Collection[str]:
    """Return whose memories the scans yield, each those of one user; of one that yields nothing, nobody."""

    async def first(scan: AsyncGenerator[Stored, None]) -> str | None:
        async with aclosing(scan):
            async for stored in scan:
                return stored.record.user_id
        return None

    return {user for user in await gather_bounded(map(first, scans), limit=_MOST_SCANS) if user is not None}


async def connect_in(threads: Threads, make: Callable[P, B], /, *args: P.args, **kwargs: P.kwargs) -> B:
    """Return what `make` returns, run in one of `threads`, which are closed where it fails."""
    try:
        return await threads(make, *args, **kwargs)
    except BaseException:
        threads.close()
        raise


async def connect_once(name: str, make: Callable[P, B], /, *args: P.args, **kwargs: P.kwargs) -> B:
    """Return what `make` returns, run in a thread that ends with it: for asynchronous SDKs, slow to import."""
    threads = Threads(1, name)
    try:
        return await threads(make, *args, **kwargs)
    finally:
        threads.close()
