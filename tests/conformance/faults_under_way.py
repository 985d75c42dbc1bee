"""Broken providers whose faults show in calls at once, cancelled, on the loop, or in logs, or lie beyond the verbs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from saboteurs import (
    Fault,
    Real,
    answering_another,
    blocking,
    break_verb,
    breaks,
    broken,
    changed,
    kept,
    logging_what,
    started,
)

from openproto import ConflictError, MemoryInput, MemoryPage, MemoryRecord, ProviderUnavailableError
from openproto.provider import count_scopes, current_call
from openproto.requests import Filters, ListQuery, MemoryUpdate, RecordRef, ScopesQuery

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


break_verb(
    "users: histories_of_users",
    UsersSkipOneBetweenPages=Fault(tell=lambda page, query: changed(page, items=page.items[bool(query.cursor) :])),
    UsersComeInReverse=Fault(tell=lambda page, query: changed(page, items=page.items[::-1])),
)
break_verb(
    "context: histories_of_contexts",
    ContextIgnoresRelevantOnly=Fault(lambda query: changed(query, relevant_only=False)),
)
break_verb(
    "search: histories_of_searches",
    MinScoreIsExclusive=Fault(
        tell=lambda hits, query: [hit for hit in hits if query.min_score is None or hit.score > query.min_score]
    ),
)
break_verb(
    "search: histories_of_filters, histories_of_scopes",
    MinScoreIsIgnoredBesideAScope=Fault(lambda query: changed(query, min_score=None) if query.scope else query),
)
break_verb(
    "restore: restoring_keeps_who_superseded_whom, histories_of_restoring",
    RestoreForgetsSupersession=Fault(lambda records: [changed(r, supersedes=[], superseded_by=None) for r in records]),
    RestoreForgetsTheSuccessor=Fault(lambda records: [changed(r, superseded_by=None) for r in records]),
    RestoreForgetsTheUpdate=Fault(lambda records: [changed(r, updated_at=None) for r in records]),
)
break_verb(
    "restore: a_record_cannot_supersede_itself",
    RestoreDropsASupersessionOfItself=Fault(
        lambda records: [changed(r, supersedes=[id for id in r.supersedes if id != r.id]) for r in records]
    ),
)


@breaks("scopes: histories_of_scopes")
async def scopes_count_what_begins_alike(real: Real, query: ScopesQuery) -> Any:
    every = await real(changed(query, prefix=None, depth=None))
    return count_scopes([(c.scope, c.records) for c in every if c.scope.startswith(query.prefix or "")], query.depth)


@breaks("delete_all: histories_of_deletes, histories_of_supersession")
async def emptying_releases_what_was_superseded(real: Any, filters: Filters) -> Any:
    query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500)
    for record in (await real.__self__.list(query)).items:
        if record.supersedes:
            await real.__self__.update(RecordRef(id=record.id), MemoryUpdate(supersedes=None))
    return await real(filters)


@breaks("restore: histories_of_restoring")
async def restore_drops_a_key_in_use(real: Real, records: Sequence[MemoryRecord]) -> Any:
    outcomes = await real(records)
    for n, (outcome, record) in enumerate(zip(outcomes, records, strict=True)):
        if outcome.outcome == "refused" and record.key is not None:
            (outcomes[n],) = await real([changed(record, key=None)])
    return outcomes


def reversed_for_contexts(page: MemoryPage, query: ListQuery) -> Any:
    return changed(page, items=page.items[::-1]) if current_call.get().verb == "context" else page


def in_any_order(page: MemoryPage, query: ListQuery) -> Any:
    return changed(page, items=sorted(page.items, key=lambda record: (-record.created_at.timestamp(), record.id)))


def without_empty_tags(new: MemoryUpdate) -> MemoryUpdate:
    others = {name: value for name, value in new.changes.items() if name != "tags"}
    return MemoryUpdate(**others) if new.changes.get("tags") == [] and others else new


PUTS: set[str] = set()
noting_puts = Fault(lambda item: PUTS.add(current_call.get().request_id) or item)
calling_them_adds = Fault(
    tell=lambda entries, _: [changed(e, action="add") if e.request_id in PUTS else e for e in entries]
)
break_verb("_list: histories_of_contexts", ContextFillsWithTheOldest=Fault(tell=reversed_for_contexts))
break_verb("list: records_of_one_moment_are_paged_by_id", OneMomentIsInAnyOrder=Fault(tell=in_any_order))
break_verb(
    "update: histories_of_updates, histories_of_supersession", AnEmptyListOfTagsChangesNothing=Fault(without_empty_tags)
)
broken("ReplacingIsAuditedAsAdding: histories_of_audits", put=noting_puts, audit=calling_them_adds)
