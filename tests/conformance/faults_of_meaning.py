"""Broken providers whose faults lie in what they write and answer: values, filters, pages, moments, keys, caches."""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from openproto_adapters.sqlite import Sqlite
from saboteurs import (
    Fault,
    Real,
    Spoil,
    break_verb,
    breaks,
    broken,
    caught_by,
    changed,
    claiming,
    declaring,
    each,
    inbound,
    kept,
    retrying,
    spoil,
    with_extensions,
)

from openproto import ConflictError, InvalidRequestError, MemoryInput, MemoryRecord, NotFoundError
from openproto.provider import Call, GeneratedKey, KeyedInput, current_call
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
    begins_again = {"cursor": None}
    return retrying(
        InvalidRequestError, lambda query: changed(query, **(begins_again if getattr(query, name) is not None else {}))
    )


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


break_verb(
    "add_many: histories_of_batches",
    BatchLosesTheSource=each(lambda item: changed(item, source=None)),
    BatchLosesTheConfidence=each(lambda item: changed(item, confidence=None)),
    BatchStripsContent=each(lambda item: changed(item, content=item.content.strip())),
    BatchLosesMicroseconds=each(
        lambda item: changed(item, valid_to=item.valid_to and item.valid_to.replace(microsecond=0))
    ),
)


def under_key(real: Any, item: MemoryInput, key: str) -> MemoryInput:
    """Return what was written first under a key, where it has the same content."""
    first: MemoryInput = kept(real, "first", {}).setdefault((item.user_id, key), item)
    return first if first.content == item.content else item


async def noting_keys(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    under_key(real, item, idempotency_key)
    return await real(item, idempotency_key=idempotency_key)


async def comparing_contents(real: Any, items: Sequence[KeyedInput]) -> Any:
    return await real([KeyedInput(under_key(real, *keyed), keyed.idempotency_key) for keyed in items])


broken(
    "BatchComparesOnlyTheContentOfAKey: histories_of_idempotency, histories_of_batches",
    add=noting_keys,
    add_many=comparing_contents,
)


@breaks("add_many: histories_of_users, histories_of_batches")
async def batch_supersedes_anothers_memory(real: Any, items: Sequence[KeyedInput]) -> Any:
    mine: list[KeyedInput] = []
    for item, key in items:
        own = []
        for old in item.supersedes:
            owner = item.user_id
            with contextlib.suppress(NotFoundError):
                owner = (await real.__self__.get(RecordRef(id=old))).user_id
            if owner == item.user_id:
                own.append(old)
            else:
                taken = MemoryInput(content=item.content, user_id=owner, supersedes=[old])
                await real.__self__.add(taken, idempotency_key=f"taken {key}")
        mine.append(KeyedInput(changed(item, supersedes=own), key))
    return await real(mine)


@breaks("update: histories_of_supersession")
async def update_drops_what_it_superseded(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if "supersedes" in changes.changes or not record.supersedes:
        return record
    return await real(RecordRef(id=record.id), MemoryUpdate(supersedes=None))


@breaks("update: histories_of_supersession")
async def update_brings_back_to_life(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real(ref, changes)
    if record.superseded_by is not None:
        with contextlib.suppress(NotFoundError):
            await real(RecordRef(id=record.superseded_by), MemoryUpdate(supersedes=None))
    return await real.__self__.get(RecordRef(id=record.id))


def with_content(spoilt: Callable[[str], str]) -> Fault:
    return Fault(lambda new: changed(new, content=spoilt(new.content)) if new.content else new)


break_verb(
    "update: histories_of_updates",
    UpdateStripsContent=with_content(str.strip),
    UpdateNormalisesContent=with_content(lambda content: unicodedata.normalize("NFC", content)),
    UpdateCutsContent=with_content(lambda content: content[:8_000]),
    UpdateSortsTags=Fault(lambda changes: changed(changes, tags=sorted(changes.tags)) if changes.tags else changes),
)


def in_json(spoilt: Spoil) -> Spoil:
    """Spoil every part of the JSON of extensions."""

    def anew(value: Any) -> Any:
        value = spoilt(value)
        if isinstance(value, dict):
            return {key: anew(part) for key, part in value.items()}
        return [anew(part) for part in value] if isinstance(value, list) else value

    return lambda item: changed(item, **{name: anew(value) for name, value in item.extensions.items()})


def written_anew(item: MemoryInput) -> Any:
    try:
        value = json.loads(item.content)
    except ValueError:
        return item
    return changed(item, content=json.dumps(value)) if isinstance(value, dict | list) else item


def with_a_short_ref(item: MemoryInput) -> Any:
    ref = item.source and item.source.ref
    return changed(item, source=changed(item.source, ref=ref[:128])) if ref else item


def dated_back(item: MemoryInput) -> Any:
    """The successor is taken to have been valid for ever."""
    forever = bool(item.supersedes) and item.valid_from is None
    return changed(item, valid_from=datetime(1900, 1, 1, tzinfo=UTC)) if forever else item


spoil(
    inbound,
    "histories_of_adds",
    TrueBecomesOne=in_json(lambda value: int(value) if isinstance(value, bool) else value),
    IntegersBecomeFloats=in_json(lambda value: float(value) if type(value) is int else value),
    NullsInObjectsVanish=in_json(
        lambda value: {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value
    ),
    TextsInExtensionsAreCut=in_json(lambda value: value[:255] if isinstance(value, str) else value),
    JsonContentIsWrittenAnew=written_anew,
    TheSourcesRefIsCut=with_a_short_ref,
)
spoil(
    inbound,
    "histories_of_adds, histories_of_users",
    TheEleventhExtensionIsDropped=lambda item: with_extensions(item, 10),
    NumericTagsLoseTheirZeros=lambda item: changed(
        item, tags=[str(int(tag)) if tag.isascii() and tag.isdigit() else tag for tag in item.tags]
    ),
    RepeatedTagsAreDropped=lambda item: changed(item, tags=list(dict.fromkeys(item.tags))),
    UserIdsAreCut=lambda item: changed(item, user_id=item.user_id[:191]),
)
spoil(inbound, "histories_of_supersession, histories_of_validity", ASupersessionIsDatedBack=dated_back)


def keyed(spoilt: Spoil) -> dict[str, Any]:
    """Spoil idempotency keys, but for those that the client makes itself."""

    def anew(real: Any, key: str) -> str:
        return key if isinstance(key, GeneratedKey) else spoilt(key, real.__self__)

    async def add(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
        return await real(item, idempotency_key=anew(real, idempotency_key))

    async def add_many(real: Any, items: Sequence[KeyedInput]) -> Any:
        return await real([KeyedInput(item, anew(real, key)) for item, key in items])

    return {"add": add, "add_many": add_many}


spoil(
    keyed,
    "histories_of_idempotency",
    KeysHaveNoCase=lambda key, _: key.casefold(),
    KeysAreCut=lambda key, _: key[:64],
    KeysAreForgottenWithTheClient=lambda key, provider: f"{id(provider)} {key}",
)
FIRST: dict[tuple[str, str], MemoryInput] = {}


@breaks("add: histories_of_idempotency")
async def keys_ignore_what_is_superseded(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    first = FIRST.setdefault((item.user_id, idempotency_key), item)
    if changed(first, supersedes=[]) == changed(item, supersedes=[]):
        try:
            return await real(item, idempotency_key=idempotency_key)
        except ConflictError:
            item = first
    return await real(item, idempotency_key=idempotency_key)
