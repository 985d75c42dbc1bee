"""Broken providers whose faults show while calls are under way: at once, cancelled, on the loop, and in logs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import caught_by_case

from openproto import (
    ConflictError,
    ContextBlock,
    MemoryInput,
    MemoryPage,
    MemoryRecord,
    ProviderUnavailableError,
    TokenCounter,
)
from openproto.provider import AuditEntries, KeyedInput, Outcomes, SearchResults, current_call
from openproto.requests import AuditQuery, ContextQuery, ListQuery, MemoryUpdate, RecordRef, SearchQuery

_log = logging.getLogger("saboteur")

ANSWERS = ("every_answer_is_its_callers",)
LOOP = ("the_loop_is_never_blocked",)
PRIVATE = ("nothing_private_is_told_by_any_verb",)
CANCELLED = ("each_cancelled_write_is_whole_or_absent",)


@caught_by_case(*ANSWERS)
class ContextAnswersAnother(Sqlite):
    last: ContextBlock

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        self.last = await super().context(query, count_tokens)
        await asyncio.sleep(0.001)
        return self.last


@caught_by_case(*ANSWERS)
class AuditAnswersAnother(Sqlite):
    last: AuditEntries

    async def audit(self, query: AuditQuery) -> AuditEntries:
        self.last = await super().audit(query)
        await asyncio.sleep(0.001)
        return self.last


@caught_by_case(*ANSWERS)
class UpdateAnswersAnother(Sqlite):
    last: MemoryRecord

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.last = await super().update(ref, changes)
        await asyncio.sleep(0.001)
        return self.last


@caught_by_case(*ANSWERS)
class TheThirtyThirdUpdateFails(Sqlite):
    under_way = 0

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.under_way += 1
        try:
            if self.under_way > 32:
                raise ProviderUnavailableError("too many updates")
            return await super().update(ref, changes)
        finally:
            self.under_way -= 1


@caught_by_case(*ANSWERS)
class EverySearchHasItsThread(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
        return await super().search(query)


@caught_by_case("histories_at_once")
class DeletesAtOnceAllSucceed(Sqlite):
    async def delete(self, ref: RecordRef) -> None:
        await super().get(ref)
        await asyncio.sleep(0.01)
        try:
            await super().delete(ref)
        except Exception:
            return


class Late(Sqlite):
    """Does later what was cancelled."""

    def later(self, call: Any) -> None:
        async def run() -> None:
            await asyncio.sleep(0.7)
            await call()

        self._late = asyncio.ensure_future(run())


@caught_by_case(*CANCELLED)
class ACancelledUpdateHappensLater(Late):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        try:
            return await super().update(ref, changes)
        except asyncio.CancelledError:
            self.later(lambda: Sqlite.update(self, ref, changes))
            raise


@caught_by_case(*CANCELLED)
class ACancelledDeleteHappensLater(Late):
    async def delete(self, ref: RecordRef) -> None:
        try:
            await super().delete(ref)
        except asyncio.CancelledError:
            self.later(lambda: Sqlite.delete(self, ref))
            raise


@caught_by_case(*CANCELLED)
class ACancelledAddHasNoAuditEntry(Sqlite):
    cancelled: ClassVar[set[str]] = set()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except asyncio.CancelledError:
            self.cancelled.add(current_call.get().request_id)
            self._late = asyncio.ensure_future(super().add(item, idempotency_key=idempotency_key))
            raise

    async def audit(self, query: AuditQuery) -> AuditEntries:
        return [entry for entry in await super().audit(query) if entry.request_id not in self.cancelled]


@caught_by_case(*LOOP)
class SearchBlocksTheLoop(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        return await super().search(query)


@caught_by_case(*LOOP)
class ListBlocksTheLoop(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        return await super().list(query)


@caught_by_case(*LOOP)
class UpdateBlocksTheLoop(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        return await super().update(ref, changes)


@caught_by_case(*LOOP)
class AddManyBlocksTheLoop(Sqlite):
    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        return await super().add_many(items)


@caught_by_case(*LOOP)
class GetBlocksTheLoop(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        time.sleep(0.025)  # noqa: ASYNC251 - the bug
        return await super().get(ref)


@caught_by_case(*LOOP)
class OpeningBlocksTheLoop(Sqlite):
    async def open(self) -> None:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        await super().open()


@caught_by_case(*PRIVATE)
class AddManyIsLogged(Sqlite):
    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        _log.debug("adding %r", items)
        return await super().add_many(items)


@caught_by_case(*PRIVATE)
class ListIsLogged(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        _log.debug("listed %r", [record.content for record in page.items])
        return page


@caught_by_case(*PRIVATE)
class ContextIsLogged(Sqlite):
    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        block = await super().context(query, count_tokens)
        _log.debug("made %r", block.text)
        return block


@caught_by_case(*PRIVATE)
class AConflictInABatchQuotes(Sqlite):
    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        outcomes = await super().add_many(items)
        return [
            ConflictError(f"not for {keyed.item.content!r}") if isinstance(outcome, ConflictError) else outcome
            for outcome, keyed in zip(outcomes, items, strict=True)
        ]


@caught_by_case("every_error_gives_its_slot_back")
class AFailedUpdateKeepsItsSlot(Sqlite):
    slots: asyncio.Semaphore | None = None

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.slots = self.slots or asyncio.Semaphore(3)
        async with asyncio.timeout(1.0), self.slots:
            return await super().get(ref)

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.slots = self.slots or asyncio.Semaphore(3)
        async with asyncio.timeout(1.0):
            await self.slots.acquire()
        record = await super().update(ref, changes)
        self.slots.release()
        return record
