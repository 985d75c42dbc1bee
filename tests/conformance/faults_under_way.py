"""Broken providers whose faults show while calls are under way: at once, cancelled, on the loop, and in logs."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from saboteurs import Fault, Real, answering_another, blocking, break_verb, broken, logging_what, started

from openproto import ConflictError, MemoryInput, ProviderUnavailableError
from openproto.provider import current_call
from openproto.requests import MemoryUpdate, RecordRef

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


async def failing_beyond(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    real.__self__.under_way = getattr(real.__self__, "under_way", 0) + 1
    try:
        if real.__self__.under_way > 32:
            raise ProviderUnavailableError("too many updates")
        return await real(ref, changes)
    finally:
        real.__self__.under_way -= 1


break_verb("update", *ANSWERS, TheThirtyThirdUpdateFails=failing_beyond)


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


CANCELLED_IDS: set[str] = set()


async def adding_unseen(real: Any, item: MemoryInput, **key: str) -> Any:
    try:
        return await real(item, **key)
    except asyncio.CancelledError:
        CANCELLED_IDS.add(current_call.get().request_id)
        real.__self__.late = asyncio.ensure_future(real(item, **key))
        raise


def slots_of(real: Any) -> Any:
    return real.__self__.__dict__.setdefault("slots", asyncio.Semaphore(3))


async def waiting_for_a_slot(real: Real, ref: RecordRef) -> Any:
    async with asyncio.timeout(1.0), slots_of(real):
        return await real(ref)


async def keeping_a_slot(real: Real, ref: RecordRef, changes: MemoryUpdate) -> Any:
    async with asyncio.timeout(1.0):
        await slots_of(real).acquire()
    record = await real(ref, changes)
    slots_of(real).release()
    return record


hiding_the_cancelled = Fault(tell=lambda entries, _: [e for e in entries if e.request_id not in CANCELLED_IDS])
broken("ACancelledAddHasNoAuditEntry", *CANCELLED, add=adding_unseen, audit=hiding_the_cancelled)
broken("AFailedUpdateKeepsItsSlot", "every_error_gives_its_slot_back", get=waiting_for_a_slot, update=keeping_a_slot)
