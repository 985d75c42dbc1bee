"""Broken providers whose faults lie in what they answer: filters, pages, moments, caches, and the audit log."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from openproto_adapters.sqlite import Sqlite
from saboteurs import Fault, Real, break_verb, breaks, broken, caught_by, changed, claiming, declaring, kept, spoil

from openproto import InvalidRequestError, MemoryRecord, NotFoundError
from openproto.provider import Call, current_call
from openproto.requests import ListQuery, MemoryUpdate, RecordRef, SearchQuery

UNIX = datetime(1970, 1, 1, tzinfo=UTC)


def beside_a_scope(**fields: Any) -> Fault:
    """Ask with those fields wherever there is a scope as well."""
    return Fault(lambda filters: filters if filters.scope is None else changed(filters, **fields))


def cut(record: MemoryRecord, most: int) -> Any:
    return changed(record, content=record.content[:most])


break_verb(
    "list: histories_of_adds",
    ListShowsAPreview=Fault(tell=lambda page, _: changed(page, items=[cut(record, 500) for record in page.items])),
)
break_verb(
    "search: histories_of_adds",
    SearchShowsASnippet=Fault(tell=lambda hits, _: [changed(hit, memory=cut(hit.memory, 20)) for hit in hits]),
)
break_verb(
    "search: a_score_is_explained_as_declared",
    AnExplanationForgetsTheNeighbours=Fault(
        tell=lambda hits, _: [changed(hit, parts=hit.parts and {"words": hit.parts["words"]}) for hit in hits]
    ),
    ExplainingSearchesElsewhere=Fault(lambda query: changed(query, limit=1) if query.explain else query),
)
break_verb("search: histories_of_searches", EveryScoreIsExplained=Fault(lambda query: changed(query, explain=True)))
break_verb("delete_all: histories_of_filters", DeleteAllIgnoresTheTagBesideAScope=beside_a_scope(tags=()))
break_verb(
    "list: histories_of_validity, histories_of_filters",
    SinceIsIgnoredBesideAScope=beside_a_scope(since=None),
    AsOfIsIgnoredBesideAScope=beside_a_scope(as_of=None),
    OneTagOfSeveralIsEnough=Fault(lambda query: changed(query, tags=query.tags[:1])),
    MomentsAreRoundedToMilliseconds=Fault(
        lambda query: changed(
            query, as_of=query.as_of and query.as_of - timedelta(microseconds=query.as_of.microsecond % 1000)
        )
    ),
)
break_verb(
    "context: histories_of_searches, histories_of_filters",
    ContextIgnoresTheTag=Fault(lambda query: changed(query, tags=())),
    ContextGoesOverItsBudget=Fault(lambda query: changed(query, token_budget=query.token_budget + 10)),
)
break_verb(
    "get: histories_of_users, histories_of_adds", IdsAreTrimmed=Fault(lambda ref: changed(ref, id=ref.id.strip()))
)
break_verb(
    "audit: histories_of_audits",
    NeverMoreThanFiftyEntries=Fault(tell=lambda entries, _: entries[:50]),
    TheAuditsLimitComesFirst=Fault(
        lambda query: changed(query, memory_id=None),
        lambda entries, query: [entry for entry in entries if query.memory_id in (None, entry.memory_id)],
    ),
)
spoil(
    declaring,
    "ingestion_is_as_declared, the_search_limit_is_as_declared",
    ClaimsToIndexLater=claiming(async_ingestion=True),
    FindsMoreThanItClaims=lambda real: changed(real, limits=changed(real.limits, max_search_results=20)),
)


async def from_a_cache(real: Any, ref: RecordRef) -> Any:
    seen = kept(real, "seen", {})
    if ref.id not in seen or ref.user_id not in (None, seen[ref.id].user_id):
        seen[ref.id] = await real(ref)
    return seen[ref.id]


async def forgetting_it(real: Any, ref: RecordRef, *changes: MemoryUpdate) -> Any:
    kept(real, "seen", {}).pop(ref.id, None)
    return await real(ref, *changes)


broken("GetAnswersFromACache: histories_of_updates", get=from_a_cache, update=forgetting_it, delete=forgetting_it)


@breaks("list: histories_of_pages, histories_of_filters")
async def since_is_forgotten_on_later_pages(real: Real, query: ListQuery) -> Any:
    page = await real(query)
    if query.cursor is None or query.since is None or page.next_cursor is not None:
        return page
    older = await real(changed(query, cursor=None, since=None, limit=500))
    more = [record for record in older.items if record.created_at < query.since]
    return changed(page, items=[*page.items, *more][: query.limit])


@breaks("list: histories_of_pages, histories_of_filters")
async def as_of_is_applied_after_the_limit(real: Real, query: ListQuery) -> Any:
    if query.as_of is None:
        return await real(query)
    ids = {record.id for record in (await real(changed(query, cursor=None, limit=500))).items}
    page = await real(changed(query, as_of=None))
    return changed(page, items=[record for record in page.items if record.id in ids])


def forgiving(name: str) -> Real:
    """Take cursors that were made for another value of a filter."""

    async def call(real: Real, query: ListQuery) -> Any:
        try:
            return await real(query)
        except InvalidRequestError:
            if query.cursor is None or getattr(query, name) is None:
                raise
            return await real(changed(query, cursor=None))

    return call


break_verb(
    "list: histories_of_pages",
    ACursorOfAnotherScopeIsTaken=forgiving("scope"),
    ACursorOfAnotherMomentIsTaken=forgiving("as_of"),
)
caught_by("the_tier_is_not_below_what_is_kept")(type("NativeSaysDetached", (Sqlite,), {"cancellation": "detached"}))


def early(query: Any, **fields: Any) -> Any:
    return changed(query, **fields) if query.as_of is not None and query.as_of < UNIX else query


broken(
    "BeforeUnixIsNow: histories_of_validity",
    list=Fault(lambda query: early(query, as_of=datetime.now(UTC))),
    search=Fault(lambda query: early(query, as_of=None)),
)


async def noting_the_deleted(real: Any, ref: RecordRef) -> None:
    await real.__self__.get(ref)
    kept(real, "gone", set()).add(ref.id)


async def hiding_one(real: Any, ref: RecordRef) -> Any:
    if ref.id in kept(real, "gone", set()):
        raise NotFoundError("no such memory")
    return await real(ref)


async def hiding_them(real: Any, query: ListQuery) -> Any:
    page = await real(query)
    return changed(page, items=[record for record in page.items if record.id not in kept(real, "gone", set())])


broken(
    "DeletedRecordsComeBackAfterReopening: histories_of_idempotency, histories_of_audits",
    delete=noting_the_deleted,
    get=hiding_one,
    list=hiding_them,
)


async def keeping_what_was(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = await Sqlite.get(real.__self__, RecordRef(id=ref.id, user_id=ref.user_id))
    record = await real(ref, changes)
    kept(real, "before", {}).setdefault(ref.id, before.content)
    return record


async def bringing_it_back(real: Any) -> None:
    before = kept(real, "before", {})
    while before and real.__self__._database is not None:
        id, content = before.popitem()
        token = current_call.set(Call("update", "closing"))
        with contextlib.suppress(NotFoundError):
            await Sqlite.update(real.__self__, RecordRef(id=id), MemoryUpdate(content=content))
        current_call.reset(token)
    await real()


broken("UpdatesAreLostOnReopening: histories_of_updates", update=keeping_what_was, close=bringing_it_back)


@breaks("search: histories_of_searches")
async def deleted_records_are_still_found(real: Any, query: SearchQuery) -> Any:
    hits, old = await real(query), kept(real, "old", [])
    known = {hit.memory.id for hit in hits}
    ghosts = [hit for hit in old if hit.memory.id not in known and hit.memory.user_id == query.user_id]
    old += hits
    return (hits + [changed(ghost, score=0.0) for ghost in ghosts])[: query.limit]


def without_scope(self: Any, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
    Sqlite._record_read(self, user_id, memory_id=memory_id)


caught_by("histories_of_audits")(type("TheScopeOfReadsIsForgotten", (Sqlite,), {"_record_read": without_scope}))
