"""Broken providers whose faults lie in what they answer: filters, pages, moments, caches, and the audit log."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from openproto_adapters.sqlite import Sqlite
from saboteurs import Declares, Fault, Real, break_verb, broken, caught_by, changed, claiming, spoil

from openproto import InvalidRequestError, MemoryPage, MemoryRecord, NotFoundError
from openproto.provider import Call, current_call
from openproto.requests import ListQuery, MemoryUpdate, RecordRef, SearchQuery

FILTERS = ("histories_of_filters",)
PAGES = ("histories_of_pages",)
AUDITS = ("histories_of_audits",)
UNIX = datetime(1970, 1, 1, tzinfo=UTC)


def beside_a_scope(**fields: Any) -> Fault:
    """Ask with those fields wherever there is a scope as well."""
    return Fault(lambda filters: filters if filters.scope is None else changed(filters, **fields))


break_verb(
    "list",
    "histories_of_adds",
    ListShowsAPreview=Fault(
        tell=lambda page, _: changed(
            page, items=[changed(record, content=record.content[:500]) for record in page.items]
        )
    ),
)
break_verb(
    "search",
    "histories_of_adds",
    SearchShowsASnippet=Fault(
        tell=lambda hits, _: [changed(h, memory=changed(h.memory, content=h.memory.content[:20])) for h in hits]
    ),
)
break_verb(
    "search",
    "a_score_is_explained_as_declared",
    AnExplanationForgetsTheNeighbours=Fault(
        tell=lambda hits, _: [changed(hit, parts=hit.parts and {"words": hit.parts["words"]}) for hit in hits]
    ),
    ExplainingSearchesElsewhere=Fault(lambda query: changed(query, limit=1) if query.explain else query),
)
break_verb("search", "histories_of_searches", EveryScoreIsExplained=Fault(lambda query: changed(query, explain=True)))
break_verb("delete_all", *FILTERS, DeleteAllIgnoresTheTagBesideAScope=beside_a_scope(tags=()))
break_verb(
    "list",
    *("histories_of_validity", *FILTERS),
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
    "context",
    *("histories_of_searches", *FILTERS),
    ContextIgnoresTheTag=Fault(lambda query: changed(query, tags=())),
    ContextGoesOverItsBudget=Fault(lambda query: changed(query, token_budget=query.token_budget + 10)),
)
break_verb(
    "get", "histories_of_users", "histories_of_adds", IdsAreTrimmed=Fault(lambda ref: changed(ref, id=ref.id.strip()))
)
break_verb(
    "audit",
    *AUDITS,
    NeverMoreThanFiftyEntries=Fault(tell=lambda entries, _: entries[:50]),
    TheAuditsLimitComesFirst=Fault(
        lambda query: changed(query, memory_id=None),
        lambda entries, query: [entry for entry in entries if query.memory_id in (None, entry.memory_id)],
    ),
)
spoil(
    Declares,
    "declare",
    *("ingestion_is_as_declared", "the_search_limit_is_as_declared"),
    ClaimsToIndexLater=lambda real: claiming(real, async_ingestion=True),
    FindsMoreThanItClaims=lambda real: changed(real, limits=changed(real.limits, max_search_results=20)),
)


@caught_by("histories_of_updates")
class GetAnswersFromACache(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.seen: dict[str, MemoryRecord] = {}

    async def get(self, ref: RecordRef) -> MemoryRecord:
        if ref.id not in self.seen or ref.user_id not in (None, self.seen[ref.id].user_id):
            self.seen[ref.id] = await super().get(ref)
        return self.seen[ref.id]

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.seen.pop(ref.id, None)
        return await super().update(ref, changes)

    async def delete(self, ref: RecordRef) -> None:
        self.seen.pop(ref.id, None)
        await super().delete(ref)


async def forgetting_since(real: Real, query: ListQuery) -> Any:
    page = await real(query)
    if query.cursor is None or query.since is None or page.next_cursor is not None:
        return page
    older = await real(changed(query, cursor=None, since=None, limit=500))
    more = [record for record in older.items if record.created_at < query.since]
    return changed(page, items=[*page.items, *more][: query.limit])


async def limiting_first(real: Real, query: ListQuery) -> Any:
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
    "list",
    *(*PAGES, *FILTERS),
    SinceIsForgottenOnLaterPages=forgetting_since,
    AsOfIsAppliedAfterTheLimit=limiting_first,
)
break_verb(
    "list",
    *PAGES,
    ACursorOfAnotherScopeIsTaken=forgiving("scope"),
    ACursorOfAnotherMomentIsTaken=forgiving("as_of"),
)
caught_by("the_tier_is_not_below_what_is_kept")(type("NativeSaysDetached", (Sqlite,), {"cancellation": "detached"}))


def early(query: Any, **fields: Any) -> Any:
    return changed(query, **fields) if query.as_of is not None and query.as_of < UNIX else query


broken(
    "BeforeUnixIsNow",
    "histories_of_validity",
    list=Fault(lambda query: early(query, as_of=datetime.now(UTC))),
    search=Fault(lambda query: early(query, as_of=None)),
)


@caught_by("histories_of_idempotency", "histories_of_audits")
class DeletedRecordsComeBackAfterReopening(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.gone: set[str] = set()

    async def delete(self, ref: RecordRef) -> None:
        await self.get(ref)
        self.gone.add(ref.id)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        if ref.id in self.gone:
            raise NotFoundError("no such memory")
        return await super().get(ref)

    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        return changed(page, items=[record for record in page.items if record.id not in self.gone])


@caught_by("histories_of_updates")
class UpdatesAreLostOnReopening(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.before: dict[str, str] = {}

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        before = await super().get(RecordRef(id=ref.id, user_id=ref.user_id))
        record = await super().update(ref, changes)
        self.before.setdefault(ref.id, before.content)
        return record

    async def close(self) -> None:
        while self.before and self._database is not None:
            id, content = self.before.popitem()
            token = current_call.set(Call("update", "closing"))
            with contextlib.suppress(NotFoundError):
                await super().update(RecordRef(id=id), MemoryUpdate(content=content))
            current_call.reset(token)
        await super().close()


async def finding_ghosts(real: Any, query: SearchQuery) -> Any:
    hits, old = await real(query), real.__self__.__dict__.setdefault("old", [])
    known = {hit.memory.id for hit in hits}
    ghosts = [hit for hit in old if hit.memory.id not in known and hit.memory.user_id == query.user_id]
    old += hits
    return (hits + [changed(ghost, score=0.0) for ghost in ghosts])[: query.limit]


break_verb("search", "histories_of_searches", DeletedRecordsAreStillFound=finding_ghosts)


def without_scope(self: Any, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
    Sqlite._record_read(self, user_id, memory_id=memory_id)


caught_by(*AUDITS)(type("TheScopeOfReadsIsForgotten", (Sqlite,), {"_record_read": without_scope}))
