"""Deliberately broken providers: each is one plausible bug, and the suite must find it by a case of the right area."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
import time
import unicodedata
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite
from openproto_conformance.execute import ALL_WORK, SuiteRun
from store_suites import SqliteSuite

from openproto import Capabilities, ContextBlock, MemoryInput, MemoryPage, MemoryRecord, Provider, SearchResult, errors
from openproto.context import estimate_tokens
from openproto.models import Citation
from openproto.provider import AuditEntries, KeyedInput, SearchResults
from openproto.requests import AuditQuery, ContextQuery, Filters, ListQuery, MemoryUpdate, RecordRef, SearchQuery
from openproto.stores.cursors import encode_cursor

PASSWORD = "correct-horse"
TICK = timedelta(microseconds=1)
_log = logging.getLogger("saboteur")


class Saboteur(NamedTuple):
    """A broken provider, and the areas and cases of which one must catch it."""

    provider: type[Sqlite]
    caught_by: tuple[str, ...]


SABOTEURS: dict[str, Saboteur] = {}


def caught_by(names: str) -> Callable[[type[Sqlite]], type[Sqlite]]:
    """Put a broken provider among the saboteurs, with the areas and cases of which one must catch it."""

    def register(cls: type[Sqlite]) -> type[Sqlite]:
        SABOTEURS[cls.__name__] = Saboteur(cls, tuple(names.split(", ")))
        return cls

    return register


def changed(model: Any, **fields: Any) -> Any:
    return model.model_copy(update=fields)


def kept(real: Any, name: str, first: Any) -> Any:
    """Return what the provider of a method keeps under a name."""
    return real.__self__.__dict__.setdefault(name, first)


Spoil: TypeAlias = Callable[..., Any]
Real: TypeAlias = Callable[..., Awaitable[Any]]


class Fault(NamedTuple):
    """What a verb is asked in place of the request, and what it answers, given its answer and the request."""

    ask: Spoil = lambda request: request
    tell: Spoil = lambda answer, request: answer
    upon: type[BaseException] | tuple[()] = ()
    give: Spoil = lambda request: None
    """What it answers upon those errors, or raises."""


def breaking(name: str = "Broken", **verbs: Any) -> Any:
    """Return a provider in which each of those verbs has a fault.

    What is no Fault stands in for the verb, and is given the real method, whose `__self__` is the provider.
    """

    def method(verb: str, fault: Any) -> Any:
        async def call(self: Sqlite, *given: Any, **options: Any) -> Any:
            real = getattr(super(cls, self), verb)
            if not isinstance(fault, Fault):
                return await fault(real, *given, **options)
            *before, request = given[: 2 if verb == "update" else 1] or [None]
            asked = (*before, fault.ask(request), *given[len(before) + 1 :])
            try:
                return fault.tell(await real(*asked[: len(given)], **options), request)
            except fault.upon as error:
                if isinstance(answer := fault.give(request), BaseException):
                    raise answer from error
                return answer

        return call

    cls: Any = type(name, (Sqlite,), {verb: method(verb, fault) for verb, fault in verbs.items()})
    return cls


def broken(named: str, module: str | None = None, **verbs: Any) -> None:
    """Make a saboteur, `named` "Name: area, case", in which each of those verbs has a fault."""
    name, _, names = named.partition(": ")
    cls = caught_by(names)(breaking(name, **verbs))
    cls.__module__ = module or sys._getframe(1).f_globals["__name__"]


def break_verb(where: str, **faults: Any) -> None:
    """Make a saboteur of each fault, with the verb broken of which `where`, "verb: area, case", speaks."""
    verb, _, names = where.partition(": ")
    for name, fault in faults.items():
        broken(f"{name}: {names}", sys._getframe(1).f_globals["__name__"], **{verb: fault})


def breaks(where: str) -> Callable[[Real], Real]:
    """Make a saboteur of a function that stands in for a verb; it has the function's name."""
    verb, _, names = where.partition(": ")

    def make(fault: Any) -> Any:
        name = "".join(word.capitalize() for word in fault.__name__.split("_"))
        broken(f"{name}: {names}", fault.__module__, **{verb: fault})
        return fault

    return make


def spoil(kind: Callable[[Spoil], dict[str, Any]], names: str, **faults: Spoil) -> None:
    """Make a saboteur of each fault, in all verbs of a kind."""
    for name, fault in faults.items():
        broken(f"{name}: {names}", sys._getframe(1).f_globals["__name__"], **kind(fault))


def each(spoilt: Spoil) -> Fault:
    return Fault(lambda items: [KeyedInput(spoilt(keyed.item), keyed.idempotency_key) for keyed in items])


def inbound(spoilt: Spoil) -> dict[str, Any]:
    return {"add": Fault(spoilt), "add_many": each(spoilt)}


def outbound(spoilt: Spoil) -> dict[str, Any]:
    one = Fault(tell=lambda record, _: spoilt(record))
    listed = Fault(tell=lambda page, _: changed(page, items=[spoilt(record) for record in page.items]))
    return {"add": one, "get": one, "list": listed}


def declaring(spoilt: Spoil) -> dict[str, Any]:
    return {"capabilities": Fault(tell=lambda real, _: spoilt(real))}


def claiming(**features: Any) -> Spoil:
    """Claim features, of which nothing is said in x-openproto."""

    def claim(real: Capabilities) -> Any:
        support = {name: how for name, how in real.x_openproto.support.items() if name not in features}
        details = changed(real.x_openproto, support=support)
        return changed(real, features=changed(real.features, **features), x_openproto=details)

    return claim


def throw(error: Exception) -> Any:
    raise error


def only(keeps: Callable[[MemoryRecord, Any], Any], ask: Spoil = lambda query: query) -> Fault:
    """Leave out of each page what is not to be kept."""
    return Fault(ask, lambda page, query: changed(page, items=[r for r in page.items if keeps(r, query)]))


def writing_first(part: Callable[[MemoryUpdate], dict[str, Any]]) -> Real:
    """Return an `update` that does a part of its work before all of it."""

    async def call(real: Real, ref: RecordRef, changes: MemoryUpdate) -> Any:
        if first := part(changes):
            await real(ref, MemoryUpdate(**first))
        return await real(ref, changes)

    return call


async def records_of(real: Any, filters: Filters) -> list[MemoryRecord]:
    """Return the first page of what `delete_all` is to delete."""
    query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500)
    return list((await real.__self__.list(query)).items)


def keeping_a_slot(*upon: type[BaseException]) -> Real:
    """Return a method that has one of three slots during a call, and does not give it back upon those errors."""

    async def call(real: Real, *given: Any) -> Any:
        slots = kept(real, "slots", asyncio.Semaphore(3))
        try:
            await asyncio.wait_for(slots.acquire(), 1.0)
        except TimeoutError:
            raise errors.ProviderUnavailableError("no connection was free within 1 s") from None
        try:
            answer = await real(*given)
        except BaseException as error:
            if not isinstance(error, upon):
                slots.release()
            raise
        slots.release()
        return answer

    return call


def started(seconds: float, value: Any = None) -> Any:
    """Return the value, and leave a thread behind for a while."""
    threading.Thread(target=threading.Event().wait, args=(seconds,), daemon=True, name="poller").start()
    return value


def blocking(seconds: float) -> Fault:
    return Fault(lambda request: time.sleep(seconds) or request)


def logging_what(text: Spoil) -> Fault:
    return Fault(tell=lambda answer, _: _log.debug("answered %r", text(answer)) or answer)


def retrying(upon: type[BaseException], ask: Spoil = lambda request: request) -> Real:
    """Return a method that upon an error asks the real one again."""

    async def call(real: Real, request: Any, **options: Any) -> Any:
        try:
            return await real(request, **options)
        except upon:
            return await real(ask(request), **options)

    return call


def delaying(seconds: float) -> Real:
    """Return a method that takes so long."""

    async def call(real: Real, *given: Any, **options: Any) -> Any:
        await asyncio.sleep(seconds)
        return await real(*given, **options)

    return call


def answering_another(seconds: float) -> Real:
    """Return a method that answers calls at one time with the last answer."""

    async def call(real: Any, *given: Any, **options: Any) -> Any:
        real.__self__.last = await real(*given, **options)
        await asyncio.sleep(seconds)
        return real.__self__.last

    return call


class SuiteOf(SqliteSuite):
    """The suite on a broken provider, with the hooks that sqlite has."""

    secrets: ClassVar[Sequence[str]] = (PASSWORD,)

    def __init__(self, cls: type[Sqlite], folder: Path) -> None:
        self.kind, self.folder = cls, folder

    @property
    def path(self) -> Path:
        return self.folder / f"{self.kind.__name__}.db"

    def busy(self, provider: Provider) -> int | None:
        return getattr(provider, "in_use", None)


def outcome_of(suite: ProviderSuite, name: str) -> str:
    """Return what comes of a case on the async face: `passed`, or what was wrong."""
    (work,) = (work for work in ALL_WORK if work.case.name == name and work.face == "async")
    result = SuiteRun(quick=True).execute(suite, work)
    return result.outcome if result.outcome == "passed" else result.detail


def catch(saboteur: Saboteur, folder: Path) -> str | None:
    """Return the first case of the right areas or names that fails, or None."""
    run, suite = SuiteRun(quick=True), SuiteOf(saboteur.provider, folder)
    for work in ALL_WORK:
        if {work.case.area, work.case.name} & {*saboteur.caught_by}:
            result = run.execute(suite, work)
            if result.outcome == "failed":
                return f"{work}: {result.detail}"
            if result.outcome == "missing":
                return None
    return None


def with_extensions(item: MemoryInput, most: int) -> MemoryInput:
    fields = {name: getattr(item, name) for name in type(item).model_fields}
    few = dict([*item.extensions.items()][:most])
    return MemoryInput.model_construct(item.model_fields_set - (item.extensions.keys() - few.keys()), **fields, **few)


@breaks("delete_all: basics")
async def empties_one_page(real: Any, filters: Filters) -> int:
    records = await records_of(real, filters)
    for record in records:
        await real.__self__.delete(RecordRef(id=record.id))
    return len(records)


@breaks("update: basics")
async def returns_the_record_before_the_update(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = await real.__self__.get(ref)
    await real(ref, changes)
    return before


break_verb("add_many: basics", MixesUpABatch=Fault(tell=lambda outcomes, _: outcomes[::-1]))
break_verb("delete: basics", DeletesTheMissing=Fault(upon=errors.NotFoundError))
break_verb("get: basics", RaisesTheVendorsError=Fault(upon=errors.NotFoundError, give=lambda ref: KeyError(ref.id)))
break_verb(
    "update: basics",
    NoneLeavesAlone=Fault(lambda new: MemoryUpdate(**{k: v for k, v in new.changes.items() if v is not None})),
)
spoil(outbound, "basics", ReusesAnId=lambda r: changed(r, id=str(uuid.uuid5(uuid.NAMESPACE_URL, r.content))))
spoil(
    inbound,
    "fidelity",
    LosesMicroseconds=lambda item: changed(item, valid_from=item.valid_from and item.valid_from.replace(microsecond=0)),
    RoundsConfidence=lambda item: changed(item, confidence=item.confidence and round(item.confidence, 6)),
    ZeroConfidenceIsNone=lambda item: changed(item, confidence=item.confidence or None),
    StripsContent=lambda item: changed(item, content=item.content.strip()),
    NormalisesText=lambda item: changed(item, content=unicodedata.normalize("NFC", item.content)),
    SortsTags=lambda item: changed(item, tags=sorted(item.tags)),
    DropsExtensions=lambda item: with_extensions(item, 0),
    DropsTheSourcesRef=lambda item: changed(item, source=item.source and changed(item.source, ref=None)),
    CutsLongContent=lambda item: changed(item, content=item.content[:65_535]),
)
spoil(
    outbound,
    "fidelity",
    ReturnsNaiveMoments=lambda r: changed(r, valid_to=r.valid_to and r.valid_to.replace(tzinfo=None)),
)


def selecting(selects: Callable[[ListQuery, MemoryRecord], Any], **nothing: Any) -> Fault:
    """Return a `list` that asks for everything without one filter, and applies that in its own way."""
    ((name, absent),) = nothing.items()
    return only(
        lambda record, query: getattr(query, name) == absent or selects(query, record),
        lambda query: query if getattr(query, name) == absent else changed(query, limit=500, **nothing),
    )


def selecting_scopes(selects: Callable[[str, str], Any]) -> Fault:
    return selecting(lambda query, record: record.scope and selects(str(query.scope), record.scope), scope=None)


break_verb(
    "list: filters",
    UnderscoreIsAWildcard=selecting_scopes(
        lambda asked, scope: re.match(re.escape(asked).replace("_", ".") + "(/|$)", scope)
    ),
    PrefixWithoutASlash=selecting_scopes(lambda asked, scope: scope.startswith(asked)),
    ScopeMatchesTheNodeOnly=selecting_scopes(lambda asked, scope: scope == asked),
    ScopesIgnoreCase=selecting_scopes(lambda asked, scope: f"{scope}/".casefold().startswith(f"{asked}/".casefold())),
    FiltersAfterTheLimit=only(lambda r, query: set(query.tags) <= set(r.tags), lambda query: changed(query, tags=())),
    SinceIsExclusive=Fault(lambda query: changed(query, since=query.since and query.since + TICK)),
    TagIsASubstring=selecting(lambda query, record: query.tags[0] in ",".join(record.tags), tags=()),
)
break_verb("search: filters", SearchDropsTheScope=Fault(lambda query: changed(query, scope=None)))
break_verb("delete_all: filters", EmptiesEveryTag=Fault(lambda filters: changed(filters, tags=())))


@breaks("list: paging")
async def counts_rows_to_skip(real: Real, query: ListQuery) -> MemoryPage:
    skip = int(query.cursor) if query.cursor and query.cursor.isdecimal() else 0
    everything = (await real(changed(query, cursor=None, limit=500))).items
    end = skip + query.limit
    return MemoryPage(items=everything[skip:end], next_cursor=str(end) if len(everything) > end else None)


def promised(page: MemoryPage, query: ListQuery) -> Any:
    if len(page.items) < query.limit or page.next_cursor is not None:
        return page
    return changed(page, next_cursor=encode_cursor(query, page.items[-1].created_at, page.items[-1].id))


break_verb(
    "list: paging",
    CapsAListSilently=Fault(
        lambda query: changed(query, limit=min(query.limit, 100)),
        lambda page, query: changed(page, next_cursor=None) if query.limit > 100 else page,
    ),
    ListsOldestFirst=Fault(tell=lambda page, _: changed(page, items=page.items[::-1])),
    SkipsARowBetweenPages=Fault(tell=lambda page, query: changed(page, items=page.items[bool(query.cursor) :])),
    StartsAgainOnABadCursor=retrying(errors.InvalidRequestError, lambda query: changed(query, cursor=None)),
    PromisesAnEmptyPage=Fault(tell=promised),
)
break_verb(
    "search: search",
    WorstFirst=Fault(tell=lambda hits, _: hits[::-1]),
    ScoresAreDistances=Fault(tell=lambda hits, _: [changed(hit, score=1.0 + hit.score) for hit in hits]),
    IgnoresMinScore=Fault(lambda query: changed(query, min_score=None)),
    ReturnsOneTooMany=Fault(lambda query: changed(query, limit=query.limit + 1)),
    FindsTwice=Fault(tell=lambda hits, query: [*hits[:1], *hits][: query.limit]),
    QueriesAreSyntax=Fault(
        lambda query: throw(errors.ProviderError("fts5: syntax error")) if query.query.count('"') % 2 else query
    ),
)

GONE: list[MemoryRecord] = []
OLD: dict[str, MemoryRecord] = {}


async def keeping_the_deleted(real: Any, ref: RecordRef) -> None:
    record = await real.__self__.get(ref)
    await real(ref)
    GONE.append(record)


async def keeping_the_old(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    OLD[ref.id] = await real.__self__.get(ref)
    return await real(ref, changes)


def with_ghosts(hits: SearchResults, query: SearchQuery) -> SearchResults:
    return [*hits, *(SearchResult(memory=r, score=0.0) for r in GONE if r.user_id == query.user_id)]


def as_they_were(hits: SearchResults, _: SearchQuery) -> SearchResults:
    return [changed(hit, memory=OLD.get(hit.memory.id, hit.memory)) for hit in hits]


broken("FindsTheDeleted: search", delete=keeping_the_deleted, search=Fault(tell=with_ghosts))
broken("ShowsTheOldText: search", update=keeping_the_old, search=Fault(tell=as_they_were))


@breaks("context: context")
async def repeats_itself(real: Any, query: ContextQuery, count_tokens: Any) -> ContextBlock:
    hits = await real.__self__.search(query.as_search(20))
    lines: list[str] = []
    for hit in hits:
        line = f"{' '.join(hit.memory.content.split())} [{hit.memory.id}]"
        if count_tokens("\n".join([*lines, line])) > query.token_budget:
            break
        lines.append(line)
    cited = [Citation(memory_id=hit.memory.id, score=hit.score) for hit in hits[: len(lines)]]
    text = "\n".join(lines)
    return ContextBlock(text=text, citations=cited, token_count=count_tokens(text) if text else 0)


break_verb(
    "context: context",
    ExceedsTheBudgetByOne=Fault(lambda query: changed(query, token_budget=query.token_budget + 1)),
    CitesBackwards=Fault(tell=lambda block, _: changed(block, citations=block.citations[::-1])),
    CountsInItsOwnWay=lambda real, query, _: real(query, estimate_tokens),
)
break_verb("search: time", IgnoresAsOf=Fault(lambda query: changed(query, as_of=None)))
break_verb(
    "list: time",
    TheEndIsIncluded=Fault(lambda query: changed(query, as_of=query.as_of and query.as_of - TICK)),
    ListHidesTheExpired=only(lambda record, query: query.as_of or record.valid_to is None),
)


async def adding_in_two_steps(real: Any, item: MemoryInput, **key: str) -> Any:
    bare = await real(changed(item, supersedes=[]), **key)
    if not item.supersedes:
        return bare
    return await real.__self__.update(RecordRef(id=bare.id), MemoryUpdate(supersedes=item.supersedes))


break_verb("add: cancellation", WritesInTwoSteps=adding_in_two_steps)
break_verb(
    "add: supersession",
    ForgetsToMark=Fault(
        lambda item: changed(item, supersedes=[]), lambda record, item: changed(record, supersedes=item.supersedes)
    ),
    ChecksAfterWriting=adding_in_two_steps,
)
break_verb(
    "update: supersession",
    ReplacesWhatIsSuperseded=writing_first(lambda changes: {"supersedes": None} if changes.supersedes else {}),
)
break_verb("add: idempotency", IgnoresTheKey=lambda real, item, **_: real(item, idempotency_key=uuid.uuid4().hex))
FIRSTS: dict[Any, Any] = {}


@breaks("add: idempotency")
async def the_first_wins_silently(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    key = (item.user_id, idempotency_key)
    with contextlib.suppress(errors.ConflictError):
        FIRSTS[key] = await real(item, idempotency_key=idempotency_key)
    return FIRSTS[key]


@breaks("add: idempotency")
async def looks_up_before_it_writes(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    key = (item.user_id, idempotency_key, "looked up")
    if key not in FIRSTS:
        FIRSTS[key] = (item, await real(item, idempotency_key=uuid.uuid4().hex))
    first, record = FIRSTS[key]
    return record if first == item else throw(errors.ConflictError("the key was used before"))


@breaks("add: idempotency, isolation")
async def keys_are_everybodys(real: Any, item: MemoryInput, *, idempotency_key: str) -> Any:
    if idempotency_key not in FIRSTS:
        FIRSTS[idempotency_key] = await real(item, idempotency_key=idempotency_key)
    return FIRSTS[idempotency_key]


break_verb("list: isolation", TrimsUserIds=Fault(lambda query: changed(query, user_id=query.user_id.strip())))


@breaks("get: isolation")
async def tells_foreign_from_unknown(real: Real, ref: RecordRef) -> Any:
    try:
        return await real(ref)
    except errors.NotFoundError:
        await real(changed(ref, user_id=None))
        raise errors.NotFoundError("this memory belongs to somebody else") from None


break_verb("delete: isolation", DeleteIgnoresTheUser=Fault(lambda ref: changed(ref, user_id=None)))
break_verb("get: isolation", GetIgnoresTheUser=Fault(lambda ref: changed(ref, user_id=None)))
SEEN: set[str] = set()


async def showing_neighbours(real: Real, query: SearchQuery) -> Any:
    hits = await real(query)
    for neighbour in sorted(SEEN - {query.user_id}):
        hits += await real(changed(query, user_id=neighbour))
    return hits[: query.limit]


noting_users = Fault(lambda item: SEEN.add(item.user_id) or item)
broken("SearchShowsANeighbour: isolation", add=noting_users, search=showing_neighbours)


break_verb(
    "update: errors",
    ValidatesAfterWriting=writing_first(lambda changes: {"content": changes.content} if changes.content else {}),
)
break_verb(
    "add: errors, every verb",
    LogsTheContent=logging_what(lambda record: record.content),
    QuotesTheContent=Fault(
        upon=errors.ConflictError,
        give=lambda item: errors.ConflictError(f"the key was used before, not for {item.content!r}"),
    ),
)
DSN = f"postgresql://app:{PASSWORD}@db/memory"
break_verb(
    "open: errors",
    LeaksTheDsn=Fault(upon=errors.ProviderError, give=lambda _: errors.ProviderUnavailableError(f"cannot reach {DSN}")),
    PassesTheVendorsErrorOn=Fault(
        upon=errors.ProviderError, give=lambda _: ConnectionRefusedError("connect call failed")
    ),
)
break_verb(
    "audit: audit",
    AuditsOldestFirst=Fault(tell=lambda entries, _: entries[::-1]),
    ForgetsDeletes=Fault(tell=lambda entries, _: [entry for entry in entries if entry.action != "delete"]),
)
spoil(outbound, "ingestion, capabilities", IsQueuedForEver=lambda record: changed(record, status="queued"))
QUERIES: list[str] = []


def telling_queries(entries: AuditEntries, _: AuditQuery) -> AuditEntries:
    return [changed(each, scope=" ".join(QUERIES)) if each.action == "search" else each for each in entries]


noting_queries = Fault(lambda query: QUERIES.append(query.query) or query)
broken("AuditsTheQuery: audit", search=noting_queries, audit=Fault(tell=telling_queries))
caught_by("audit")(type("NeverFlushesReads", (Sqlite,), {"_record_read": lambda self, user_id, **of: None}))


@caught_by("lifecycle")
class ConnectsInItsConstructor(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        time.sleep(0.02)


@breaks("close: lifecycle")
async def closes_only_once(real: Any) -> None:
    if hasattr(real.__self__, "closed"):
        raise errors.ProviderError("already closed")
    real.__self__.closed = True
    await real()


TASKS: list[Any] = []
FILES: list[Any] = []
PROCESSES: set[int] = set()
break_verb(
    "open: lifecycle",
    LeaksAThread=Fault(tell=lambda *_: started(20.0)),
    LeaksAFile=Fault(tell=lambda *_: FILES.append(tempfile.TemporaryFile())),  # noqa: SIM115 - the bug
    LeaksATask=Fault(tell=lambda *_: TASKS.append(asyncio.create_task(asyncio.sleep(20.0)))),
)


FORKED = errors.ProviderError("the connection belongs to another process")
break_verb(
    "get: lifecycle",
    KeepsTheLoopInAFork=Fault(lambda ref: throw(FORKED) if PROCESSES.add(os.getpid()) or len(PROCESSES) > 1 else ref),
)


@breaks("update: concurrency")
async def reads_modifies_writes(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    before = await real.__self__.get(ref)
    names = ("content", "scope", "tags", "confidence", "valid_to")
    return await real(ref, MemoryUpdate(**{**{n: getattr(before, n) for n in names}, **changes.changes}))


async def locking(real: Any, *given: Any, **options: Any) -> Any:
    async with kept(real, "lock", asyncio.Lock()):
        return await real(*given, **options)


broken("OneLockForAll: concurrency", add=locking, get=locking)
break_verb("add: every verb", AThreadForEachCall=Fault(lambda item: started(0.3, item)))
break_verb("add: concurrency, every verb", MixesUpResults=answering_another(0.002), BlocksTheLoop=blocking(0.03))


@breaks("update: cancellation")
async def updates_in_two_steps(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    record = await real.__self__.get(ref)
    for name, value in changes.changes.items():
        record = await real(ref, MemoryUpdate(**{name: value}))
    return record


@breaks("list: cancellation")
async def tidies_up_slowly(real: Real, query: ListQuery) -> Any:
    try:
        return await real(query)
    finally:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(asyncio.sleep(0.1))


@breaks("get: cancellation")
async def keeps_a_connection(real: Any, ref: RecordRef) -> Any:
    provider = real.__self__
    provider.in_use = getattr(provider, "in_use", 0) + 1
    record = await real(ref)
    provider.in_use -= 1
    return record


@breaks("update: cancellation")
async def keeps_a_lock(real: Any, ref: RecordRef, changes: MemoryUpdate) -> Any:
    lock = kept(real, "lock", asyncio.Lock())
    await lock.acquire()
    record = await real(ref, changes)
    lock.release()
    return record


break_verb("get: cancellation", LosesASlot=keeping_a_slot(asyncio.CancelledError))


def leaving_a_task(_: Any) -> BaseException:
    TASKS.append(asyncio.create_task(asyncio.sleep(20.0)))
    return asyncio.CancelledError()


break_verb(
    "add: cancellation",
    SwallowsACancellation=retrying(asyncio.CancelledError),
    WritesAfterwards=lambda real, item, **key: asyncio.shield(asyncio.ensure_future(real(item, **key))),
)
break_verb(
    "get: cancellation",
    RenamesACancellation=Fault(
        upon=asyncio.CancelledError, give=lambda _: errors.ProviderError("the call was interrupted")
    ),
    LeavesATaskBehind=Fault(upon=asyncio.CancelledError, give=leaving_a_task),
)
break_verb(
    "add: storm",
    LosesThreadsInAStorm=Fault(upon=asyncio.CancelledError, give=lambda _: started(5.0, asyncio.CancelledError())),
)


async def opening_half_way(real: Real) -> None:
    FILES.append(await asyncio.to_thread(tempfile.TemporaryFile))
    await real()


async def closing_what_opened(real: Any) -> None:
    if real.__self__._audit_buffer is not None:
        FILES.pop().close()
    await real()


broken("OpensHalfWay: cancellation", open=opening_half_way, close=closing_what_opened)
spoil(
    declaring,
    "capabilities",
    ClaimsVectors=claiming(vector_search=True),
    HidesTemporal=claiming(temporal=False),
    HidesItsAudit=claiming(supports_audit=False),
    ClaimsToTakeLess=claiming(max_content_length=5_000),
    ClaimsAnotherTier=lambda real: changed(real, x_openproto=changed(real.x_openproto, cancellation="aborting")),
    HidesAVerb=lambda real: changed(real, verbs=[verb for verb in real.verbs if verb != "audit"]),
)
REFUSAL = errors.UnsupportedCapabilityError("sqlite does not support audit", provider="sqlite")
TOO_LONG = errors.InvalidRequestError("content: too long for this backend")
break_verb("audit: capabilities", ClaimsAVerbItRefuses=Fault(lambda query: throw(REFUSAL)))
break_verb(
    "add: capabilities",
    TakesLessThanItClaims=Fault(lambda item: throw(TOO_LONG) if len(item.content) > 8_000 else item),
)
