"""Broken providers whose faults show while calls are under way: at once, cancelled, on the loop, and in logs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from saboteurs import Fault, Real, answering_another, blocking, break_verb, breaks, broken, kept, logging_what, started

from openproto import ConflictError, MemoryInput, ProviderUnavailableError
from openproto.provider import current_call
from openproto.requests import MemoryUpdate, RecordRef

for _verb in ("context", "audit", "update"):
    _answers: Any = {f"{_verb.title()}AnswersAnother": answering_another(0.001)}
    break_verb(f"{_verb}: every_answer_is_its_callers", **_answers)
for _verb in ("search", "list", "update", "add_many", "open", "get"):
    _blocks: Any = {f"{_verb.title().replace('_', '')}BlocksTheLoop": blocking(0.025 if _verb == "get" else 0.06)}
    break_verb(f"{_verb}: the_loop_is_never_blocked", **_blocks)
break_verb("search: every_answer_is_its_callers", EverySearchHasItsThread=Fault(lambda query: started(1.0, query)))
break_verb(
    "add_many: nothing_private_is_told_by_any_verb",
    AddManyIsLogged=logging_what(lambda outcomes: [getattr(o, "content", o) for o in outcomes]),
    AConflictInABatchQuotes=Fault(
        tell=lambda outcomes, items: [
            ConflictError(f"not for {keyed.item.content!r}") if isinstance(outcome, ConflictError) else outcome
            for outcome, keyed in zip(outcomes, items, strict=True)
        ]
    ),
)
break_verb(
    "list: nothing_private_is_told_by_any_verb",
    ListIsLogged=logging_what(lambda page: [record.content for record in page.items]),
)
break_verb("context: nothing_private_is_told_by_any_verb", ContextIsLogged=logging_what(lambda block: block.text))


@breaks("update: every_answer_is_its_callers")
async def the_thirty_third_update_fails(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    real.__self__.under_way = getattr(real.__self__, "under_way", 0) + 1
    try:
        if real.__self__.under_way > 32:
            raise ProviderUnavailableError("too many updates")
        return await real(ref, changes)
    finally:
        real.__self__.under_way -= 1


@breaks("delete: histories_at_once")
async def deletes_at_once_all_succeed(real: Any, ref: RecordRef) -> None:
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


break_verb("update: each_cancelled_write_is_whole_or_absent", ACancelledUpdateHappensLater=later)
break_verb("delete: each_cancelled_write_is_whole_or_absent", ACancelledDeleteHappensLater=later)
CANCELLED_IDS: set[str] = set()


async def adding_unseen(real: Any, item: MemoryInput, **key: str) -> Any:
    try:
        return await real(item, **key)
    except asyncio.CancelledError:
        CANCELLED_IDS.add(current_call.get().request_id)
        real.__self__.late = asyncio.ensure_future(real(item, **key))
        raise


hiding_the_cancelled = Fault(tell=lambda entries, _: [e for e in entries if e.request_id not in CANCELLED_IDS])
broken(
    "ACancelledAddHasNoAuditEntry: each_cancelled_write_is_whole_or_absent",
    add=adding_unseen,
    audit=hiding_the_cancelled,
)


async def waiting_for_a_slot(real: Real, ref: RecordRef) -> Any:
    async with asyncio.timeout(1.0), kept(real, "slots", asyncio.Semaphore(3)):
        return await real(ref)


async def keeping_a_slot(real: Real, ref: RecordRef, changes: MemoryUpdate) -> Any:
    slots = kept(real, "slots", asyncio.Semaphore(3))
    async with asyncio.timeout(1.0):
        await slots.acquire()
    record = await real(ref, changes)
    slots.release()
    return record


broken("AFailedUpdateKeepsItsSlot: every_error_gives_its_slot_back", get=waiting_for_a_slot, update=keeping_a_slot)
