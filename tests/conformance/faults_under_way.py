"""Broken providers whose faults show in calls at once, on the loop, in logs, or where two things come together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from openproto_adapters.sqlite import statements
from saboteurs import (
    Fault,
    Real,
    answering_another,
    blocking,
    break_verb,
    breaks,
    broken,
    changed,
    keeping_a_slot,
    logging_what,
    records_of,
    started,
    throw,
)

from openproto import ConflictError, MemoryInput, MemoryRecord, NotFoundError, ProviderUnavailableError
from openproto.models import PutResult
from openproto.provider import KeyedInput, count_scopes, current_call
from openproto.requests import Filters, KeyRef, MemoryUpdate, RecordRef, ScopesQuery

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


broken(
    "AFailedUpdateKeepsItsSlot: every_error_gives_its_slot_back",
    get=keeping_a_slot(),
    update=keeping_a_slot(BaseException),
)
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


async def releasing(real: Any, filters: Filters) -> Any:
    for record in await records_of(real, filters):
        if record.supersedes:
            with contextlib.suppress(ConflictError, NotFoundError):
                await real.__self__.update(RecordRef(id=record.id), MemoryUpdate(supersedes=None))
    return await real(filters)


break_verb("delete_all: histories_of_supersession", WhatDeletedSuccessorsReplacedIsCurrentAgain=releasing)
break_verb("delete_all: histories_of_deletes, histories_of_supersession", EmptyingReleasesWhatWasSuperseded=releasing)


@breaks("restore: histories_of_restoring")
async def restore_drops_a_key_in_use(real: Real, records: Sequence[MemoryRecord]) -> Any:
    outcomes = await real(records)
    for n, (outcome, record) in enumerate(zip(outcomes, records, strict=True)):
        if outcome.outcome == "refused" and record.key is not None:
            (outcomes[n],) = await real([changed(record, key=None)])
    return outcomes


def without_empty_tags(new: MemoryUpdate) -> MemoryUpdate:
    others = {name: value for name, value in new.changes.items() if name != "tags"}
    return MemoryUpdate(**others) if new.changes.get("tags") == [] and others else new


PUTS: set[str] = set()
noting_puts = Fault(lambda item: PUTS.add(current_call.get().request_id) or item)
calling_them_adds = Fault(
    tell=lambda entries, _: [changed(e, action="add") if e.request_id in PUTS else e for e in entries]
)
break_verb(
    "_list: histories_of_contexts",
    ContextFillsWithTheOldest=Fault(
        tell=lambda page, _: changed(page, items=page.items[:: -1 if current_call.get().verb == "context" else 1])
    ),
)
break_verb(
    "list: records_of_one_moment_are_paged_by_id",
    OneMomentIsInAnyOrder=Fault(
        tell=lambda page, _: changed(page, items=sorted(page.items, key=lambda r: (-r.created_at.timestamp(), r.id)))
    ),
)
break_verb(
    "update: histories_of_updates, histories_of_supersession", AnEmptyListOfTagsChangesNothing=Fault(without_empty_tags)
)
broken("ReplacingIsAuditedAsAdding: histories_of_audits", put=noting_puts, audit=calling_them_adds)
break_verb(
    "delete: histories_of_keys, histories_of_updates",
    AStaleVersionCountsOnlyBesideAUser=Fault(lambda ref: ref if ref.user_id else changed(ref, if_version=None)),
)


break_verb(
    "get: histories_of_users",
    UserIdsHaveNoCaseBesideAnId=Fault(
        lambda ref: changed(ref, user_id=None),
        lambda r, ref: (
            r
            if (ref.user_id or r.user_id).casefold() == r.user_id.casefold()
            else throw(NotFoundError("no such memory"))
        ),
    ),
)
break_verb(
    "get_by_key: histories_of_supersession",
    AKeyLeadsToNoSupersededRecord=Fault(
        tell=lambda record, _: throw(NotFoundError("no such memory")) if record.superseded_by else record
    ),
)
break_verb(
    "search: histories_of_filters",
    TheSecondTagComesAfterTheLimit=Fault(
        lambda query: changed(query, tags=query.tags[:1]),
        lambda hits, query: [hit for hit in hits if set(query.tags) <= set(hit.memory.tags)],
    ),
)


@breaks("put: histories_of_keys")
async def the_same_content_is_not_put_again(real: Any, item: MemoryInput, *, if_version: str | None) -> Any:
    with contextlib.suppress(NotFoundError):
        record = await real.__self__.get_by_key(KeyRef(user_id=item.user_id, key=item.key or ""))
        if record.content == item.content and if_version is None:
            return PutResult(record=record, created=False)
    return await real(item, if_version=if_version)


@breaks("put: histories_of_keys")
async def a_put_of_a_version_is_a_new_record(real: Any, item: MemoryInput, *, if_version: str | None) -> Any:
    put = await real(item, if_version=if_version)
    moment = put.record.updated_at or put.record.created_at
    return changed(put, record=changed(put.record, created_at=moment)) if if_version else put


@breaks("update: histories_of_updates")
async def objects_are_merged(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = (await real.__self__.get(changed(ref, if_version=None))).extensions
    both = {
        name: {**before[name], **value}
        for name, value in changes.extensions.items()
        if isinstance(value, dict) and isinstance(before.get(name), dict)
    }
    return await real(ref, changed(changes, **both))


@breaks("delete_all: histories_of_deletes, histories_of_filters")
async def any_of_the_tags_is_enough_in_a_scope(real: Real, filters: Filters) -> Any:
    if filters.scope is None or not filters.tags:
        return await real(filters)
    return sum([await real(changed(filters, tags=(tag,))) for tag in filters.tags])


@breaks("delete: histories_of_deletes")
async def another_users_version_is_compared(real: Any, ref: RecordRef) -> None:
    record = await real.__self__._db.get(statements.get_each, RecordRef(id=ref.id))  # which leaves no entry
    if ref.if_version not in (None, record.version):
        raise ConflictError("if_version: the record has another one")
    await real(ref)


@breaks("update: histories_of_updates")
async def clearing_an_extension_clears_what_begins_alike(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = (await real.__self__._db.get(statements.get_each, ref)).extensions
    cleared = tuple(name for name, value in changes.extensions.items() if value is None)
    alike = {name: None for name in before if name.startswith(cleared)} if cleared else {}
    return await real(ref, changed(changes, **(alike | changes.extensions)))


@breaks("add_many: histories_of_duplicates")
async def a_batch_does_not_see_itself(real: Real, items: Sequence[KeyedInput]) -> Any:
    said: set[tuple[str, str | None, str]] = set()
    asked: list[KeyedInput] = []
    for item, key in items:
        says = (item.user_id, item.scope, item.content)
        asked.append(KeyedInput(changed(item, on_duplicate="keep") if says in said else item, key))
        said.add(says)
    return await real(asked)
