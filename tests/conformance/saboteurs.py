"""Deliberately broken providers: each is one plausible bug, and the suite must find it by a case of the right area.

`python tests/conformance/saboteurs.py` prints the score.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
import sys
import tempfile
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite
from openproto_conformance.execute import ALL_WORK, SuiteRun

from openproto import (
    Capabilities,
    ConflictError,
    ContextBlock,
    InvalidRequestError,
    MemoryInput,
    MemoryPage,
    MemoryRecord,
    NotFoundError,
    Provider,
    ProviderError,
    ProviderUnavailableError,
    SearchResult,
    TokenCounter,
)
from openproto.context import estimate_tokens
from openproto.models import Citation
from openproto.provider import AuditEntries, KeyedInput, Outcomes, SearchResults
from openproto.requests import AuditQuery, ContextQuery, Filters, ListQuery, MemoryUpdate, RecordRef, SearchQuery
from openproto.stores.cursors import encode_cursor

PASSWORD = "correct-horse"
TICK = timedelta(microseconds=1)
_log = logging.getLogger("saboteur")


class Saboteur(NamedTuple):
    """A broken provider, and the areas and cases of which one must catch it."""

    provider: type[Sqlite]
    caught_by: tuple[str, ...]


SABOTEURS: list[Saboteur] = []


def caught_by(*names: str) -> Callable[[type[Sqlite]], type[Sqlite]]:
    """Put a broken provider among the saboteurs, with the areas and cases of which one must catch it."""

    def register(cls: type[Sqlite]) -> type[Sqlite]:
        SABOTEURS.append(Saboteur(cls, names))
        return cls

    return register


def changed(model: Any, **fields: Any) -> Any:
    return model.model_copy(update=fields)


Spoil: TypeAlias = Callable[..., Any]


class Fault(NamedTuple):
    """What a verb is asked in place of the request, and what it answers, given its answer and the request."""

    ask: Spoil = lambda request: request
    tell: Spoil = lambda answer, request: answer


def break_verb(verb: str, *names: str, at: int = 0, **faults: Fault) -> None:
    """Make a saboteur of each fault, with that verb broken; `at` is the place of the request among its arguments."""

    def broken(name: str, fault: Fault) -> Any:
        async def call(self: Sqlite, *given: Any, **options: Any) -> Any:
            asked = [*given[:at], fault.ask(given[at]), *given[at + 1 :]]
            return fault.tell(await getattr(super(cls, self), verb)(*asked, **options), given[at])

        cls: Any = type(name, (Sqlite,), {verb: call, "__module__": sys._getframe(2).f_globals["__name__"]})
        return cls

    for name, fault in faults.items():
        caught_by(*names)(broken(name, fault))


def spoil(base: type[Sqlite], part: str, *names: str, **faults: Spoil) -> None:
    """Make a saboteur of each fault, in which `base` has that method, and so passes on what the fault makes of it."""

    def broken(name: str, fault: Spoil) -> Any:
        def call(self: Sqlite, *given: Any) -> Any:
            return getattr(super(cls, self), part)(fault(*given))

        cls: Any = type(name, (base,), {part: call, "__module__": sys._getframe(2).f_globals["__name__"]})
        return cls

    for name, fault in faults.items():
        caught_by(*names)(broken(name, fault))


class SuiteOf(ProviderSuite):
    """The suite on a broken provider, with the hooks that sqlite has."""

    secrets: ClassVar[Sequence[str]] = (PASSWORD,)

    def __init__(self, cls: type[Sqlite], folder: Path) -> None:
        self._cls = cls
        self._path = folder / f"{cls.__name__}.db"

    def provider(self) -> Provider:
        return self._cls(self._path, embedder="none")

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        other = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            other.execute("BEGIN IMMEDIATE")
            yield
        finally:
            other.close()

    def busy(self, provider: Provider) -> int | None:
        return getattr(provider, "in_use", None)

    def unreachable(self) -> Provider:
        return self._cls("/dev/null/memory.db", embedder="none")


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


class Inbound(Sqlite):
    """Spoils every memory on its way in."""

    def spoil(self, item: MemoryInput) -> MemoryInput:
        return item

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await super().add(self.spoil(item), idempotency_key=idempotency_key)

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        return await super().add_many([KeyedInput(self.spoil(k.item), k.idempotency_key) for k in items])


class Outbound(Sqlite):
    """Spoils every record on its way out."""

    def spoil(self, record: MemoryRecord) -> MemoryRecord:
        return record

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return self.spoil(await super().add(item, idempotency_key=idempotency_key))

    async def get(self, ref: RecordRef) -> MemoryRecord:
        return self.spoil(await super().get(ref))

    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        return changed(page, items=[self.spoil(record) for record in page.items])


class Lister(Sqlite):
    """Asks for everything and filters by scope in its own way."""

    def selects(self, filter: str, scope: str) -> bool:
        return True

    async def list(self, query: ListQuery) -> MemoryPage:
        if query.scope is None:
            return await super().list(query)
        page = await super().list(changed(query, scope=None, limit=500))
        return changed(page, items=[r for r in page.items if r.scope and self.selects(query.scope, r.scope)])


def with_extensions(item: MemoryInput, most: int) -> MemoryInput:
    """Return the input with so many of its extensions."""
    fields = {name: getattr(item, name) for name in type(item).model_fields}
    kept = dict([*item.extensions.items()][:most])
    return MemoryInput.model_construct(item.model_fields_set - (item.extensions.keys() - kept.keys()), **fields, **kept)


# Basics

break_verb("add_many", "basics", MixesUpABatch=Fault(tell=lambda outcomes, _: outcomes[::-1]))
break_verb(
    "update",
    "basics",
    at=1,
    NoneLeavesAlone=Fault(lambda new: MemoryUpdate(**{k: v for k, v in new.changes.items() if v is not None})),
)
spoil(Outbound, "spoil", "basics", ReusesAnId=lambda r: changed(r, id=str(uuid.uuid5(uuid.NAMESPACE_URL, r.content))))


@caught_by("basics")
class DeletesTheMissing(Sqlite):
    async def delete(self, ref: RecordRef) -> None:
        with contextlib.suppress(NotFoundError):
            await super().delete(ref)


@caught_by("basics")
class EmptiesOnePage(Sqlite):
    async def delete_all(self, filters: Filters) -> int:
        page = await self.list(ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500))
        for record in page.items:
            await self.delete(RecordRef(id=record.id))
        return len(page.items)


@caught_by("basics")
class RaisesTheVendorsError(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except NotFoundError:
            raise KeyError(ref.id) from None


@caught_by("basics")
class ReturnsTheRecordBeforeTheUpdate(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        before = await super().get(ref)
        await super().update(ref, changes)
        return before


# Fidelity

spoil(
    Inbound,
    "spoil",
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
    Outbound,
    "spoil",
    "fidelity",
    ReturnsNaiveMoments=lambda record: changed(
        record, valid_to=record.valid_to and record.valid_to.replace(tzinfo=None)
    ),
)


# Filters

SELECTIONS: dict[str, Callable[[str, str], bool]] = {
    "UnderscoreIsAWildcard": lambda asked, scope: bool(re.match(re.escape(asked).replace("_", ".") + "(/|$)", scope)),
    "PrefixWithoutASlash": lambda asked, scope: scope.startswith(asked),
    "ScopeMatchesTheNodeOnly": lambda asked, scope: scope == asked,
    "ScopesIgnoreCase": lambda asked, scope: f"{scope}/".casefold().startswith(f"{asked}/".casefold()),
}
for _name, _selects in SELECTIONS.items():
    caught_by("filters")(type(_name, (Lister,), {"selects": staticmethod(_selects)}))
break_verb("search", "filters", SearchDropsTheScope=Fault(lambda query: changed(query, scope=None)))
break_verb("delete_all", "filters", EmptiesEveryTag=Fault(lambda filters: changed(filters, tags=())))
break_verb(
    "list",
    "filters",
    FiltersAfterTheLimit=Fault(
        lambda query: changed(query, tags=()),
        lambda page, query: changed(page, items=[r for r in page.items if set(query.tags) <= set(r.tags)]),
    ),
    SinceIsExclusive=Fault(lambda query: changed(query, since=query.since and query.since + TICK)),
)


@caught_by("filters")
class TagIsASubstring(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        if not query.tags:
            return await super().list(query)
        page = await super().list(changed(query, tags=(), limit=500))
        return changed(page, items=[r for r in page.items if query.tags[0] in ",".join(r.tags)])


# Paging

break_verb(
    "list",
    "paging",
    CapsAListSilently=Fault(
        lambda query: changed(query, limit=min(query.limit, 100)),
        lambda page, query: changed(page, next_cursor=None) if query.limit > 100 else page,
    ),
    ListsOldestFirst=Fault(tell=lambda page, _: changed(page, items=page.items[::-1])),
    SkipsARowBetweenPages=Fault(tell=lambda page, query: changed(page, items=page.items[bool(query.cursor) :])),
)


@caught_by("paging")
class CountsRowsToSkip(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        skip = int(query.cursor) if query.cursor and query.cursor.isdecimal() else 0
        everything = await super().list(changed(query, cursor=None, limit=500))
        items = everything.items[skip : skip + query.limit]
        more = len(everything.items) > skip + query.limit
        return MemoryPage(items=items, next_cursor=str(skip + query.limit) if more else None)


@caught_by("paging")
class StartsAgainOnABadCursor(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        try:
            return await super().list(query)
        except InvalidRequestError:
            return await super().list(changed(query, cursor=None))


@caught_by("paging")
class PromisesAnEmptyPage(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        if len(page.items) == query.limit and page.next_cursor is None:
            last = page.items[-1]
            return changed(page, next_cursor=encode_cursor(query, last.created_at, last.id))
        return page


# Search

break_verb(
    "search",
    "search",
    WorstFirst=Fault(tell=lambda hits, _: hits[::-1]),
    ScoresAreDistances=Fault(tell=lambda hits, _: [changed(hit, score=1.0 + hit.score) for hit in hits]),
    IgnoresMinScore=Fault(lambda query: changed(query, min_score=None)),
    ReturnsOneTooMany=Fault(lambda query: changed(query, limit=query.limit + 1)),
    FindsTwice=Fault(tell=lambda hits, query: [*hits[:1], *hits][: query.limit]),
)


@caught_by("search")
class FindsTheDeleted(Sqlite):
    gone: ClassVar[list[MemoryRecord]] = []

    async def delete(self, ref: RecordRef) -> None:
        record = await super().get(ref)
        await super().delete(ref)
        self.gone.append(record)

    async def search(self, query: SearchQuery) -> SearchResults:
        ghosts = [SearchResult(memory=r, score=0.0) for r in self.gone if r.user_id == query.user_id]
        return [*await super().search(query), *ghosts]


@caught_by("search")
class ShowsTheOldText(Sqlite):
    old: ClassVar[dict[str, MemoryRecord]] = {}

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.old[ref.id] = await super().get(ref)
        return await super().update(ref, changes)

    async def search(self, query: SearchQuery) -> SearchResults:
        return [changed(hit, memory=self.old.get(hit.memory.id, hit.memory)) for hit in await super().search(query)]


@caught_by("search")
class QueriesAreSyntax(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        if query.query.count('"') % 2:
            raise ProviderError("fts5: syntax error")
        return await super().search(query)


# Context

break_verb(
    "context",
    "context",
    ExceedsTheBudgetByOne=Fault(lambda query: changed(query, token_budget=query.token_budget + 1)),
    CitesBackwards=Fault(tell=lambda block, _: changed(block, citations=block.citations[::-1])),
)
break_verb("context", "context", at=1, CountsInItsOwnWay=Fault(lambda _: estimate_tokens))


@caught_by("context")
class RepeatsItself(Sqlite):
    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        hits = await self.search(query.as_search(20))
        lines: list[str] = []
        for hit in hits:
            line = f"{' '.join(hit.memory.content.split())} [{hit.memory.id}]"
            if count_tokens("\n".join([*lines, line])) > query.token_budget:
                break
            lines.append(line)
        cited = [Citation(memory_id=hit.memory.id, score=hit.score) for hit in hits[: len(lines)]]
        text = "\n".join(lines)
        return ContextBlock(text=text, citations=cited, token_count=count_tokens(text) if text else 0)


# Time and supersession

break_verb("search", "time", IgnoresAsOf=Fault(lambda query: changed(query, as_of=None)))
break_verb(
    "list",
    "time",
    TheEndIsIncluded=Fault(lambda query: changed(query, as_of=query.as_of and query.as_of - TICK)),
    ListHidesTheExpired=Fault(
        tell=lambda page, query: changed(page, items=[r for r in page.items if query.as_of or r.valid_to is None])
    ),
)


@caught_by("supersession")
class ForgetsToMark(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        record = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        return changed(record, supersedes=item.supersedes)


@caught_by("supersession")
class ChecksAfterWriting(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        record = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        for old in item.supersedes:
            record = await super().update(RecordRef(id=record.id), MemoryUpdate(supersedes=[old]))
        return record


@caught_by("supersession")
class ReplacesWhatIsSuperseded(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.supersedes:
            await super().update(ref, MemoryUpdate(supersedes=None))
        return await super().update(ref, changes)


# Idempotency


@caught_by("idempotency")
class IgnoresTheKey(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await super().add(item, idempotency_key=uuid.uuid4().hex)


@caught_by("idempotency")
class TheFirstWinsSilently(Sqlite):
    firsts: ClassVar[dict[tuple[str, str], MemoryRecord]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        key = (item.user_id, idempotency_key)
        with contextlib.suppress(ConflictError):
            self.firsts[key] = await super().add(item, idempotency_key=idempotency_key)
        return self.firsts[key]


@caught_by("idempotency")
class LooksUpBeforeItWrites(Sqlite):
    keys: ClassVar[dict[tuple[str, str], tuple[MemoryInput, MemoryRecord]]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        key = (item.user_id, idempotency_key)
        if key not in self.keys:
            self.keys[key] = (item, await super().add(item, idempotency_key=uuid.uuid4().hex))
        if self.keys[key][0] != item:
            raise ConflictError("the key was used before")
        return self.keys[key][1]


@caught_by("idempotency", "isolation")
class KeysAreEverybodys(Sqlite):
    keys: ClassVar[dict[str, MemoryRecord]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        if idempotency_key not in self.keys:
            self.keys[idempotency_key] = await super().add(item, idempotency_key=idempotency_key)
        return self.keys[idempotency_key]


# Isolation

break_verb("get", "isolation", GetIgnoresTheUser=Fault(lambda ref: changed(ref, user_id=None)))
break_verb("delete", "isolation", DeleteIgnoresTheUser=Fault(lambda ref: changed(ref, user_id=None)))


@caught_by("isolation")
class SearchShowsANeighbour(Sqlite):
    seen: ClassVar[set[str]] = set()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        self.seen.add(item.user_id)
        return await super().add(item, idempotency_key=idempotency_key)

    async def search(self, query: SearchQuery) -> SearchResults:
        hits = await super().search(query)
        for neighbour in sorted(self.seen - {query.user_id}):
            hits += await super().search(changed(query, user_id=neighbour))
        return hits[: query.limit]


@caught_by("isolation")
class TrimsUserIds(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        trimmed = query.user_id.strip()
        return page if trimmed == query.user_id else await super().list(changed(query, user_id=trimmed))


@caught_by("isolation")
class TellsForeignFromUnknown(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except NotFoundError:
            await super().get(changed(ref, user_id=None))
            raise NotFoundError("this memory belongs to somebody else") from None


# Errors


@caught_by("errors")
class ValidatesAfterWriting(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.content:
            await super().update(ref, MemoryUpdate(content=changes.content))
        return await super().update(ref, changes)


@caught_by("errors", "every verb")
class QuotesTheContent(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except ConflictError:
            raise ConflictError(f"the key was used before, not for {item.content!r}") from None


@caught_by("errors", "every verb")
class LogsTheContent(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        _log.debug("adding %r", item)
        return await super().add(item, idempotency_key=idempotency_key)


@caught_by("errors")
class LeaksTheDsn(Sqlite):
    async def open(self) -> None:
        try:
            await super().open()
        except ProviderError as error:
            raise ProviderUnavailableError(f"cannot reach postgresql://app:{PASSWORD}@db/memory") from error


@caught_by("errors")
class PassesTheVendorsErrorOn(Sqlite):
    async def open(self) -> None:
        try:
            await super().open()
        except ProviderError as error:
            raise ConnectionRefusedError("connect call failed") from error


# Audit and ingestion

break_verb(
    "audit",
    "audit",
    AuditsOldestFirst=Fault(tell=lambda entries, _: entries[::-1]),
    ForgetsDeletes=Fault(tell=lambda entries, _: [entry for entry in entries if entry.action != "delete"]),
)
spoil(Outbound, "spoil", "ingestion", "capabilities", IsQueuedForEver=lambda record: changed(record, status="queued"))


@caught_by("audit")
class AuditsTheQuery(Sqlite):
    last: ClassVar[list[str]] = []

    async def search(self, query: SearchQuery) -> SearchResults:
        self.last.append(query.query)
        return await super().search(query)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        return [
            changed(e, scope=" ".join(self.last)) if e.action == "search" else e for e in await super().audit(query)
        ]


@caught_by("audit")
class NeverFlushesReads(Sqlite):
    def _record_read(self, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
        return None


# Lifecycle


@caught_by("lifecycle")
class ConnectsInItsConstructor(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        time.sleep(0.02)


@caught_by("lifecycle")
class ClosesOnlyOnce(Sqlite):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise ProviderError("already closed")
        self.closed = True
        await super().close()


@caught_by("lifecycle")
class LeaksAThread(Sqlite):
    async def open(self) -> None:
        await super().open()
        threading.Thread(target=threading.Event().wait, args=(20.0,), daemon=True, name="poller").start()


@caught_by("lifecycle")
class LeaksAFile(Sqlite):
    files: ClassVar[list[Any]] = []

    async def open(self) -> None:
        await super().open()
        self.files.append(await asyncio.to_thread(tempfile.TemporaryFile))


@caught_by("lifecycle")
class LeaksATask(Sqlite):
    async def open(self) -> None:
        await super().open()
        self._poller = asyncio.create_task(asyncio.sleep(20.0))


@caught_by("lifecycle")
class KeepsTheLoopInAFork(Sqlite):
    process: ClassVar[list[int]] = []

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.process.append(os.getpid())
        if len(set(self.process)) > 1:
            raise ProviderError("the connection belongs to another process")
        return await super().get(ref)


# Concurrency


@caught_by("concurrency", "every verb")
class BlocksTheLoop(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        time.sleep(0.03)  # noqa: ASYNC251 - the bug
        return await super().add(item, idempotency_key=idempotency_key)


@caught_by("concurrency", "every verb")
class MixesUpResults(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        self._last = await super().add(item, idempotency_key=idempotency_key)
        await asyncio.sleep(0.002)
        return self._last


@caught_by("concurrency")
class OneLockForAll(Sqlite):
    _lock: asyncio.Lock | None = None

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            return await super().add(item, idempotency_key=idempotency_key)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self._lock = self._lock or asyncio.Lock()
        async with self._lock:
            return await super().get(ref)


@caught_by("concurrency")
class ReadsModifiesWrites(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        before = await super().get(ref)
        names = ("content", "scope", "tags", "confidence", "valid_to")
        return await super().update(ref, MemoryUpdate(**{**{n: getattr(before, n) for n in names}, **changes.changes}))


@caught_by("every verb")
class AThreadForEachCall(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
        return await super().add(item, idempotency_key=idempotency_key)


# Cancellation


@caught_by("cancellation")
class SwallowsACancellation(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except asyncio.CancelledError:
            return await super().add(item, idempotency_key=idempotency_key)


@caught_by("cancellation")
class RenamesACancellation(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except asyncio.CancelledError:
            raise ProviderError("the call was interrupted") from None


@caught_by("cancellation")
class WritesInTwoSteps(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        bare = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        if not item.supersedes:
            return bare
        return await super().update(RecordRef(id=bare.id), MemoryUpdate(supersedes=item.supersedes))


@caught_by("cancellation")
class UpdatesInTwoSteps(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        record = await super().get(ref)
        for name, value in changes.changes.items():
            record = await super().update(ref, MemoryUpdate(**{name: value}))
        return record


@caught_by("cancellation")
class TidiesUpSlowly(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        try:
            return await super().list(query)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.sleep(0.1))


@caught_by("cancellation")
class KeepsALock(Sqlite):
    _lock: asyncio.Lock | None = None

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self._lock = self._lock or asyncio.Lock()
        await self._lock.acquire()
        record = await super().update(ref, changes)
        self._lock.release()
        return record


@caught_by("cancellation")
class LosesASlot(Sqlite):
    _slots: asyncio.Semaphore | None = None

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self._slots = self._slots or asyncio.Semaphore(3)
        try:
            await asyncio.wait_for(self._slots.acquire(), 1.0)
        except TimeoutError:
            raise ProviderUnavailableError("no connection was free within 1 s") from None
        try:
            record = await super().get(ref)
        except Exception:
            self._slots.release()
            raise
        self._slots.release()
        return record


@caught_by("cancellation")
class KeepsAConnection(Sqlite):
    in_use = 0

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.in_use += 1
        record = await super().get(ref)
        self.in_use -= 1
        return record


@caught_by("cancellation")
class WritesAfterwards(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await asyncio.shield(asyncio.ensure_future(super().add(item, idempotency_key=idempotency_key)))


@caught_by("cancellation")
class LeavesATaskBehind(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except asyncio.CancelledError:
            self._cleaning = asyncio.create_task(asyncio.sleep(20.0))
            raise


@caught_by("cancellation")
class OpensHalfWay(Sqlite):
    files: ClassVar[list[Any]] = []

    async def open(self) -> None:
        self.files.append(await asyncio.to_thread(tempfile.TemporaryFile))
        await super().open()

    async def close(self) -> None:
        if self._audit_buffer is not None:
            self.files.pop().close()
        await super().close()


@caught_by("storm")
class LosesThreadsInAStorm(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except asyncio.CancelledError:
            threading.Thread(target=time.sleep, args=(5.0,), daemon=True).start()
            raise


# Capabilities


class Declares(Sqlite):
    """Declares something else than it does."""

    def declare(self, real: Capabilities) -> Capabilities:
        return real

    async def capabilities(self) -> Capabilities:
        return self.declare(await super().capabilities())


def claiming(real: Capabilities, **features: Any) -> Capabilities:
    """Return capabilities with those features, of which nothing is said in x-openproto."""
    support = {name: how for name, how in real.x_openproto.support.items() if name not in features}
    details = changed(real.x_openproto, support=support)
    claimed: Capabilities = changed(real, features=changed(real.features, **features), x_openproto=details)
    return claimed


spoil(
    Declares,
    "declare",
    "capabilities",
    ClaimsVectors=lambda real: claiming(real, vector_search=True),
    HidesTemporal=lambda real: claiming(real, temporal=False),
    HidesItsAudit=lambda real: claiming(real, supports_audit=False),
    ClaimsToTakeLess=lambda real: claiming(real, max_content_length=5_000),
    ClaimsAnotherTier=lambda real: changed(real, x_openproto=changed(real.x_openproto, cancellation="aborting")),
    HidesAVerb=lambda real: changed(real, verbs=[verb for verb in real.verbs if verb != "audit"]),
)


@caught_by("capabilities")
class ClaimsAVerbItRefuses(Sqlite):
    async def audit(self, query: AuditQuery) -> AuditEntries:
        raise self.unsupported("audit")


@caught_by("capabilities")
class TakesLessThanItClaims(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        if len(item.content) > 8_000:
            raise InvalidRequestError("content: too long for this backend")
        return await super().add(item, idempotency_key=idempotency_key)


def score(report: Callable[[str], None]) -> int:
    """Try every saboteur, report how each was caught, and return how many were not."""
    with tempfile.TemporaryDirectory(prefix="openproto-saboteurs-") as folder:
        caught = 0
        for saboteur in SABOTEURS:
            case = catch(saboteur, Path(folder))
            caught += case is not None
            report(f"{'caught' if case else 'MISSED'}  {saboteur.provider.__name__:32} {(case or '')[:140]}")
    report(f"{caught} of {len(SABOTEURS)} saboteurs were caught")
    return len(SABOTEURS) - caught


if __name__ == "__main__":
    raise SystemExit(score(print))
