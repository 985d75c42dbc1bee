"""Broken providers whose faults lie in what a provider does beyond its verbs: scopes, users, put, restore, moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saboteurs import Fault, Real, break_verb, breaks, broken, changed

from openproto import MemoryPage, MemoryRecord
from openproto.provider import count_scopes, current_call
from openproto.requests import Filters, ListQuery, MemoryUpdate, RecordRef, ScopesQuery

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
