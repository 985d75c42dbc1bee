"""`OpenProtoStore`: LangGraph's store over `Memory` or `AsyncMemory`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, Self, TypeAlias

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
)

from openproto import AsyncMemory, ConflictError, Memory, MemoryRecord, NotFoundError, gather_bounded
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.langgraph.filters import matches_value, select_namespaces
from openproto.integrations.langgraph.items import StoredItem, namespace_of, record_key, records_of, scope_of
from openproto.requests import MAX_SEARCH_LIMIT
from openproto.stores.ranking import cosine_of

Ops: TypeAlias = list[Op]
Results: TypeAlias = list[Result]

_AT_ONCE = 16


class OpenProtoStore(BaseStore):
    """A LangGraph store: namespaces are scopes, keys are keys, values are JSON.

    Args:
        memory: Where the items are kept. A `Memory` serves `batch` and `abatch` on any thread and loop; an
            `AsyncMemory` serves `abatch` on the loop that first used it, and `batch` in other threads; on that loop
            `batch` raises `asyncio.InvalidStateError`.
        user_id: Whose memory all namespaces of this store are. Use one store per user where users must not share one.
        index: LangGraph's index configuration. `fields` says which texts of a value are found; the vectors are the
            provider's, so a function of your own is given to the client: `embedder=IndexEmbedder(index)`.
        ttl: LangGraph's configuration of the time to live, in minutes.
    """

    supports_ttl = True

    def __init__(
        self,
        memory: Memory | AsyncMemory,
        *,
        user_id: str = "langgraph",
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
    ) -> None:
        self.index_config = index
        # With a function of one's own, scores are what LangGraph's stores give: cosines.
        self._ranks_by_cosine = index is not None and "embed" in index
        self.embeddings = ensure_embeddings(index["embed"]) if index is not None and "embed" in index else None
        self.ttl_config = ttl
        self._given = memory
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._user_id = user_id
        self._fields: list[str] = list((index or {}).get("fields") or ["$"])
        self._waiting: list[tuple[Ops, asyncio.Future[Results]]] = []
        self._sweeper: asyncio.Task[None] | None = None

    def batch(self, ops: Iterable[Op]) -> Results:
        """Run the operations: all reads, then all writes; the last write of a key counts."""
        return self._bound.run(self._run(list(ops)))

    async def abatch(self, ops: Iterable[Op]) -> Results:
        """Run the operations like `batch`; calls that wait at the same moment are run together."""
        return await self._bound.call(self._joined(list(ops)))

    def sweep_ttl(self) -> int:
        """Delete the items whose time is over and return how many there were."""
        return self._bound.run(self._sweep())

    async def asweep_ttl(self) -> int:
        """Delete the items whose time is over and return how many there were."""
        return await self._bound.call(self._sweep())

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> None:
        """Sweep regularly, by default as `ttl["sweep_interval_minutes"]` says, until `stop_ttl_sweeper`."""
        minutes = sweep_interval_minutes or (self.ttl_config or {}).get("sweep_interval_minutes") or 5
        self._bound.loop().call_soon_threadsafe(self._start_sweeper, minutes * 60)

    def stop_ttl_sweeper(self) -> None:
        """Stop sweeping."""
        self._bound.loop().call_soon_threadsafe(self._stop_sweeper)

    def __enter__(self) -> Self:
        if not isinstance(self._given, Memory):
            raise TypeError("`with` needs OpenProtoStore(Memory(...)); use `async with` for an AsyncMemory")
        self._given.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_ttl_sweeper()
        self._bound.run(self._memory.aclose())

    async def __aenter__(self) -> Self:
        await self._bound.call(self._memory.__aenter__())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_sweeper()
        await self._bound.call(self._memory.aclose())

    # Running operations.

    async def _joined(self, ops: Ops) -> Results:
        """Run `ops` together with those of every call that comes before the loop's next turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._start_waiting)
        mine: asyncio.Future[Results] = loop.create_future()
        self._waiting.append((ops, mine))
        return await mine

    def _start_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        task = asyncio.get_running_loop().create_task(self._settle(waiting), name="openproto-langgraph")
        _running.add(task)
        task.add_done_callback(_running.discard)

    async def _settle(self, waiting: Sequence[tuple[Ops, asyncio.Future[Results]]]) -> None:
        live = [(ops, future) for ops, future in waiting if not future.done()]
        outcomes: Sequence[Any]
        try:
            answers = iter(await self._run([op for ops, _ in live for op in ops]))
            outcomes = [[*islice(answers, len(ops))] for ops, _ in live]
        except Exception:  # whichever it is, it must not spoil the neighbours: each is run alone and gets its own error
            outcomes = await gather_bounded((self._run(ops) for ops, _ in live), limit=_AT_ONCE, return_exceptions=True)
        for (_, future), outcome in zip(live, outcomes, strict=True):
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    async def _run(self, ops: Ops) -> Results:
        names = [None if isinstance(op, PutOp) else _name(op) for op in ops]
        reads = {name: op for name, op in zip(names, ops, strict=True) if name is not None}
        absent: set[tuple[tuple[str, ...], str]] = set()
        found = await gather_bounded((self._read(op, absent) for op in reads.values()), limit=_AT_ONCE)
        answers = dict(zip(reads, found, strict=True))
        writes = {(op.namespace, op.key): op for op in ops if isinstance(op, PutOp)}
        # What these operations found absent they need not delete: the reads and the deletion are at the same moment.
        due = (op for name, op in writes.items() if op.value is not None or name not in absent)
        await gather_bounded((self._put(op) for op in due), limit=_AT_ONCE)
        return [None if name is None else answers[name] for name in names]

    async def _read(self, op: Op, absent: set[tuple[tuple[str, ...], str]]) -> Result:
        if isinstance(op, GetOp):
            record = await self._record(op.namespace, op.key)
            if record is None:
                absent.add((op.namespace, op.key))
                return None
            if (stored := _unexpired(record)) is None:
                return None
            if op.refresh_ttl:
                await self._refresh(stored)
            return stored.item()
        if isinstance(op, SearchOp):
            return [found async for found in self._search(op)]
        if isinstance(op, ListNamespacesOp):
            scopes = await self._memory.scopes(self._user_id)
            return select_namespaces([namespace_of(one.scope) for one in scopes if one.scope], op)
        raise TypeError(f"{type(op).__name__} is not an operation of a store")

    async def _record(self, namespace: tuple[str, ...], key: str, part: int = 0) -> MemoryRecord | None:
        try:
            return await self._memory.get(user_id=self._user_id, key=record_key(namespace, key, part))
        except NotFoundError:
            return None

    async def _put(self, op: PutOp) -> None:
        before = await self._parts(op)
        written = 0
        if op.value is not None:
            for record in records_of(op, self._fields, datetime.now(UTC)):
                await self._memory.put(user_id=self._user_id, **record)
                written += 1
        for part in range(written, before):
            await self._delete(op.namespace, op.key, part)

    async def _parts(self, op: PutOp) -> int:
        """Return how many records the item has now; with one field an item never has more than one."""
        if op.value is not None and op.index is None and self._fields == ["$"]:
            return 1
        record = await self._record(op.namespace, op.key)
        if record is None:
            return 0
        stored = StoredItem.of(record)
        return stored.parts if stored else 1

    async def _delete(self, namespace: tuple[str, ...], key: str, part: int) -> None:
        if (record := await self._record(namespace, key, part)) is not None:
            with suppress(NotFoundError):
                await self._memory.delete(record.id, user_id=self._user_id)

    async def _search(self, op: SearchOp) -> AsyncIterator[SearchItem]:
        now, skipped, given = datetime.now(UTC), 0, 0
        async for stored, score in self._candidates(op):
            if stored.is_expired(now) or not matches_value(stored.value, op.filter):
                continue
            if skipped < op.offset:
                skipped += 1
                continue
            if given == op.limit:
                return
            given += 1
            if op.refresh_ttl:
                await self._refresh(stored)
            yield stored.search_item(score)

    async def _candidates(self, op: SearchOp) -> AsyncIterator[tuple[StoredItem, float | None]]:
        """Yield the items of the namespace: by score where there is a query, and then those that no query ranks."""
        scope = scope_of(op.namespace_prefix)
        has_query = bool(op.query and op.query.strip())
        seen: set[tuple[tuple[str, ...], str]] = set()
        if has_query:
            for hit in await self._memory.search(op.query or "", self._user_id, scope=scope, limit=MAX_SEARCH_LIMIT):
                stored = StoredItem.of(hit.memory)
                if stored is None or (stored.namespace, stored.key) in seen:
                    continue
                seen.add((stored.namespace, stored.key))
                whole = _unexpired(await self._record(stored.namespace, stored.key)) if stored.part else stored
                if whole is not None:
                    yield whole, cosine_of(hit.score) if self._ranks_by_cosine else hit.score
        async for record in self._memory.iter(self._user_id, scope=scope):
            stored = StoredItem.of(record)
            if stored is None or stored.part or (stored.namespace, stored.key) in seen:
                continue
            if has_query and not stored.is_indexed:
                continue
            yield stored, 0.0 if has_query else None

    async def _refresh(self, stored: StoredItem) -> None:
        if stored.ttl is None:
            return
        now = datetime.now(UTC)
        # Another client may have changed or deleted the item meanwhile: then it is theirs to say how long it lives.
        with suppress(ConflictError, NotFoundError):
            await self._memory.update(
                stored.record.id, user_id=self._user_id, if_version=stored.record.version, **stored.refreshed(now)
            )

    # The time to live.

    async def _sweep(self) -> int:
        now, swept = datetime.now(UTC), 0
        async for record in self._memory.iter(self._user_id):
            stored = StoredItem.of(record)
            if stored is None or not stored.is_expired(now):
                continue
            with suppress(ConflictError, NotFoundError):
                await self._memory.delete(record.id, user_id=self._user_id, if_version=record.version)
                for part in range(1, stored.parts):
                    await self._delete(stored.namespace, stored.key, part)
                swept += 1
        return swept

    def _start_sweeper(self, seconds: float) -> None:
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep_regularly(seconds))

    def _stop_sweeper(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    async def _sweep_regularly(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            await self._sweep()


def _unexpired(record: MemoryRecord | None) -> StoredItem | None:
    stored = StoredItem.of(record) if record is not None else None
    return stored if stored is not None and not stored.is_expired(datetime.now(UTC)) else None


def _name(op: Op) -> Hashable:
    """Return what equal operations have in common: most of them are tuples of what can be hashed."""
    try:
        hash(op)
    except TypeError:
        return repr(op)
    return op


_running: set[asyncio.Task[None]] = set()
"""Keeps the tasks alive that run joined operations."""
