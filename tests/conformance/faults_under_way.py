"""Broken providers whose faults show while calls are under way: at once, cancelled, on the loop, and in logs."""

from __future__ import annotations

import asyncio
import contextlib
from functools import cached_property
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, answering_another, blocking, break_verb, caught_by, logging_what, started

from openproto import ConflictError, MemoryInput, MemoryRecord, ProviderUnavailableError
from openproto.provider import AuditEntries, current_call
from openproto.requests import AuditQuery, MemoryUpdate, RecordRef

ANSWERS = ("every_answer_is_its_callers",)
LOOP = ("the_loop_is_never_blocked",)
PRIVATE = ("nothing_private_is_told_by_any_verb",)
CANCELLED = ("each_cancelled_write_is_whole_or_absent",)


break_verb("context", *ANSWERS, ContextAnswersAnother=answering_another(0.001))
break_verb("audit", *ANSWERS, AuditAnswersAnother=answering_another(0.001))
break_verb("update", *ANSWERS, UpdateAnswersAnother=answering_another(0.001))
break_verb("search", *ANSWERS, EverySearchHasItsThread=Fault(lambda query: started(1.0, query)))
for _verb in ("search", "list", "update", "add_many", "open"):
    _blocked: Any = {f"{_verb.title().replace('_', '')}BlocksTheLoop": blocking(0.06)}
    break_verb(_verb, *LOOP, **_blocked)
break_verb("get", *LOOP, GetBlocksTheLoop=blocking(0.025))
break_verb(
    "add_many",
    *PRIVATE,
    AddManyIsLogged=logging_what(lambda outcomes: [getattr(o, "content", o) for o in outcomes]),
    AConflictInABatchQuotes=Fault(
        tell=lambda outcomes, items: [
            ConflictError(f"not for {keyed.item.content!r}") if isinstance(outcome, ConflictError) else outcome
            for outcome, keyed in zip(outcomes, items, strict=True)
        ]
    ),
)
break_verb("list", *PRIVATE, ListIsLogged=logging_what(lambda page: [record.content for record in page.items]))
break_verb("context", *PRIVATE, ContextIsLogged=logging_what(lambda block: block.text))


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


async def always_succeeding(real: Any, ref: RecordRef) -> None:
    await real.__self__.get(ref)
    await asyncio.sleep(0.01)
    with contextlib.suppress(Exception):
        await real(ref)


async def later(real: Any, *given: Any) -> Any:
    """Do 0.7 s later what was cancelled."""

    async def run() -> None:
        await asyncio.sleep(0.7)
        await real(*given)

    try:
        return await real(*given)
    except asyncio.CancelledError:
        real.__self__.late = asyncio.ensure_future(run())
        raise


break_verb("delete", "histories_at_once", DeletesAtOnceAllSucceed=always_succeeding)
break_verb("update", *CANCELLED, ACancelledUpdateHappensLater=later)
break_verb("delete", *CANCELLED, ACancelledDeleteHappensLater=later)


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


@caught_by("every_error_gives_its_slot_back")
class AFailedUpdateKeepsItsSlot(Sqlite):
    @cached_property
    def slots(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(3)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        async with asyncio.timeout(1.0), self.slots:
            return await super().get(ref)

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        async with asyncio.timeout(1.0):
            await self.slots.acquire()
        record = await super().update(ref, changes)
        self.slots.release()
        return record
