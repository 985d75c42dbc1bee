"""Broken providers whose faults lie in what a provider does beyond its verbs: scopes, users, put, restore, moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, break_verb, caught_by, changed

from openproto import MemoryInput, MemoryPage, MemoryRecord
from openproto.models import PutResult
from openproto.provider import AuditEntries, RestoreOutcomes, ScopeCounts, count_scopes, current_call
from openproto.requests import AuditQuery, Filters, ListQuery, MemoryUpdate, RecordRef, ScopesQuery

break_verb(
    "users",
    "histories_of_users",
    UsersSkipOneBetweenPages=Fault(tell=lambda page, query: changed(page, items=page.items[bool(query.cursor) :])),
    UsersComeInReverse=Fault(tell=lambda page, query: changed(page, items=page.items[::-1])),
)
break_verb(
    "context",
    "histories_of_contexts",
    ContextIgnoresRelevantOnly=Fault(lambda query: changed(query, relevant_only=False)),
)
break_verb(
    "search",
    "histories_of_searches",
    MinScoreIsExclusive=Fault(
        tell=lambda hits, query: [hit for hit in hits if query.min_score is None or hit.score > query.min_score]
    ),
)
break_verb(
    "search",
    *("histories_of_filters", "histories_of_scopes"),
    MinScoreIsIgnoredBesideAScope=Fault(lambda query: changed(query, min_score=None) if query.scope else query),
)
break_verb(
    "restore",
    *("restoring_keeps_who_superseded_whom", "histories_of_restoring"),
    RestoreForgetsSupersession=Fault(lambda records: [changed(r, supersedes=[], superseded_by=None) for r in records]),
    RestoreForgetsTheSuccessor=Fault(lambda records: [changed(r, superseded_by=None) for r in records]),
    RestoreForgetsTheUpdate=Fault(lambda records: [changed(r, updated_at=None) for r in records]),
)


@caught_by("histories_of_scopes")
class ScopesCountWhatBeginsAlike(Sqlite):
    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        every = await super().scopes(changed(query, prefix=None, depth=None))
        prefix = query.prefix or ""
        return count_scopes([(c.scope, c.records) for c in every if c.scope.startswith(prefix)], query.depth)


@caught_by("histories_of_contexts")
class ContextFillsWithTheOldest(Sqlite):
    async def _list(self, query: ListQuery) -> MemoryPage:
        page = await super()._list(query)
        filling: MemoryPage = changed(page, items=page.items[::-1]) if current_call.get().verb == "context" else page
        return filling


@caught_by("histories_of_audits")
class ReplacingIsAuditedAsAdding(Sqlite):
    puts: ClassVar[set[str]] = set()

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        self.puts.add(current_call.get().request_id)
        return await super().put(item, if_version=if_version)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        entries = await super().audit(query)
        return [changed(entry, action="add") if entry.request_id in self.puts else entry for entry in entries]


@caught_by("histories_of_deletes", "histories_of_supersession")
class EmptyingReleasesWhatWasSuperseded(Sqlite):
    async def delete_all(self, filters: Filters) -> int:
        page = await super().list(ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500))
        for record in page.items:
            if record.supersedes:
                await super().update(RecordRef(id=record.id), MemoryUpdate(supersedes=None))
        return await super().delete_all(filters)


@caught_by("records_of_one_moment_are_paged_by_id")
class OneMomentIsInAnyOrder(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)

        def place(record: MemoryRecord) -> Any:
            return (-record.created_at.timestamp(), record.id)

        ordered: MemoryPage = changed(page, items=sorted(page.items, key=place))
        return ordered


@caught_by("histories_of_restoring")
class RestoreDropsAKeyInUse(Sqlite):
    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        outcomes = await super().restore(records)
        for n, (outcome, record) in enumerate(zip(outcomes, records, strict=True)):
            if outcome.outcome == "refused" and record.key is not None:
                (outcomes[n],) = await super().restore([changed(record, key=None)])
        return outcomes


@caught_by("histories_of_updates", "histories_of_supersession")
class AnEmptyListOfTagsChangesNothing(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.changes.get("tags") == []:
            others = {name: value for name, value in changes.changes.items() if name != "tags"}
            changes = MemoryUpdate(**others) if others else changes
        return await super().update(ref, changes)
