"""Broken providers whose faults show while calls are under way: at once, cancelled, on the loop, and in logs."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, break_verb, caught_by

from openproto import ConflictError, MemoryInput, MemoryRecord, ProviderUnavailableError
from openproto.provider import AuditEntries, current_call
from openproto.requests import AuditQuery, MemoryUpdate, RecordRef

_log = logging.getLogger("saboteur")

ANSWERS = ("every_answer_is_its_callers",)
LOOP = ("the_loop_is_never_blocked",)
PRIVATE = ("nothing_private_is_told_by_any_verb",)
CANCELLED = ("each_cancelled_write_is_whole_or_absent",)


def answers_another(name: str, verb: str) -> None:
    """Make a saboteur whose calls of that verb at one time are answered with the last answer."""

    async def call(self: Any, *given: Any) -> Any:
        self.last = await getattr(super(cls, self), verb)(*given)
        await asyncio.sleep(0.001)
        return self.last

    cls: Any = type(name, (Sqlite,), {verb: call})
    caught_by(*ANSWERS)(cls)


answers_another("ContextAnswersAnother", "context")
answers_another("AuditAnswersAnother", "audit")
answers_another("UpdateAnswersAnother", "update")


def blocking(seconds: float) -> Fault:
    def ask(request: Any) -> Any:
        time.sleep(seconds)
        return request

    return Fault(ask)


break_verb("search", *LOOP, SearchBlocksTheLoop=blocking(0.06))
break_verb("list", *LOOP, ListBlocksTheLoop=blocking(0.06))
break_verb("update", *LOOP, UpdateBlocksTheLoop=blocking(0.06))
break_verb("add_many", *LOOP, AddManyBlocksTheLoop=blocking(0.06))
break_verb("get", *LOOP, GetBlocksTheLoop=blocking(0.025))


def logged(text: Callable[[Any], Any]) -> Fault:
    """Log what is private of an answer."""

    def tell(answer: Any, _: Any) -> Any:
        _log.debug("answered %r", text(answer))
        return answer

    return Fault(tell=tell)


break_verb("add_many", *PRIVATE, AddManyIsLogged=logged(lambda outcomes: [getattr(o, "content", o) for o in outcomes]))
break_verb("list", *PRIVATE, ListIsLogged=logged(lambda page: [record.content for record in page.items]))
break_verb("context", *PRIVATE, ContextIsLogged=logged(lambda block: block.text))
break_verb(
    "add_many",
    *PRIVATE,
    AConflictInABatchQuotes=Fault(
        tell=lambda outcomes, items: [
            ConflictError(f"not for {keyed.item.content!r}") if isinstance(outcome, ConflictError) else outcome
            for outcome, keyed in zip(outcomes, items, strict=True)
        ]
    ),
)


def started_for(query: Any) -> Any:
    threading.Thread(target=time.sleep, args=(1.0,), daemon=True).start()
    return query


break_verb("search", *ANSWERS, EverySearchHasItsThread=Fault(started_for))


@caught_by(*ANSWERS)
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


@caught_by("histories_at_once")
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


@caught_by(*CANCELLED)
class ACancelledUpdateHappensLater(Late):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        try:
            return await super().update(ref, changes)
        except asyncio.CancelledError:
            self.later(lambda: Sqlite.update(self, ref, changes))
            raise


@caught_by(*CANCELLED)
class ACancelledDeleteHappensLater(Late):
    async def delete(self, ref: RecordRef) -> None:
        try:
            await super().delete(ref)
        except asyncio.CancelledError:
            self.later(lambda: Sqlite.delete(self, ref))
            raise


@caught_by(*CANCELLED)
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


@caught_by(*LOOP)
class OpeningBlocksTheLoop(Sqlite):
    async def open(self) -> None:
        time.sleep(0.06)  # noqa: ASYNC251 - the bug
        await super().open()


@caught_by("every_error_gives_its_slot_back")
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
