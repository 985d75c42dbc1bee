"""Deliberately broken providers: each is one plausible bug, and the suite must find it by a case of the right area.

`python tests/conformance/saboteurs.py` prints the score.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import tempfile
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

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
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    Filters,
    ListQuery,
    MemoryUpdate,
    RecordRef,
    SearchQuery,
)
from openproto.stores.cursors import encode_cursor

PASSWORD = "correct-horse"
TICK = timedelta(microseconds=1)
_log = logging.getLogger("saboteur")


@dataclass(frozen=True)
class Saboteur:
    """A broken provider, and the areas, or the cases, of which one must catch it."""

    provider: type[Sqlite]
    areas: tuple[str, ...] = ()
    cases: tuple[str, ...] = ()


SABOTEURS: list[Saboteur] = []


def caught_by_area(*areas: str) -> Callable[[type[Sqlite]], type[Sqlite]]:
    def register(cls: type[Sqlite]) -> type[Sqlite]:
        SABOTEURS.append(Saboteur(cls, areas))
        return cls

    return register


def caught_by_case(*cases: str) -> Callable[[type[Sqlite]], type[Sqlite]]:
    def register(cls: type[Sqlite]) -> type[Sqlite]:
        SABOTEURS.append(Saboteur(cls, cases=cases))
        return cls

    return register


def changed(model: Any, **fields: Any) -> Any:
    return model.model_copy(update=fields)


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
        if work.case.area in saboteur.areas or work.case.name in saboteur.cases:
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


# Basics


@caught_by_area("basics")
class NoneLeavesAlone(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        named = {name: value for name, value in changes.changes.items() if value is not None}
        return await super().update(ref, MemoryUpdate(**named))


@caught_by_area("basics")
class DeletesTheMissing(Sqlite):
    async def delete(self, ref: RecordRef) -> None:
        with contextlib.suppress(NotFoundError):
            await super().delete(ref)


@caught_by_area("basics")
class MixesUpABatch(Sqlite):
    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        return (await super().add_many(items))[::-1]


@caught_by_area("basics")
class EmptiesOnePage(Sqlite):
    async def delete_all(self, filters: Filters) -> int:
        page = await self.list(ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=500))
        for record in page.items:
            await self.delete(RecordRef(id=record.id))
        return len(page.items)


@caught_by_area("basics")
class RaisesTheVendorsError(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except NotFoundError:
            raise KeyError(ref.id) from None


@caught_by_area("basics")
class ReusesAnId(Outbound):
    def spoil(self, record: MemoryRecord) -> MemoryRecord:
        return changed(record, id=str(uuid.uuid5(uuid.NAMESPACE_URL, record.content)))


@caught_by_area("basics")
class ReturnsTheRecordBeforeTheUpdate(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        before = await super().get(ref)
        await super().update(ref, changes)
        return before


# Fidelity


@caught_by_area("fidelity")
class LosesMicroseconds(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, valid_from=item.valid_from and item.valid_from.replace(microsecond=0))


@caught_by_area("fidelity")
class ReturnsNaiveMoments(Outbound):
    def spoil(self, record: MemoryRecord) -> MemoryRecord:
        return changed(record, valid_to=record.valid_to and record.valid_to.replace(tzinfo=None))


@caught_by_area("fidelity")
class RoundsConfidence(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, confidence=item.confidence and round(item.confidence, 6))


@caught_by_area("fidelity")
class ZeroConfidenceIsNone(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, confidence=item.confidence or None)


@caught_by_area("fidelity")
class StripsContent(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, content=item.content.strip())


@caught_by_area("fidelity")
class NormalisesText(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, content=unicodedata.normalize("NFC", item.content))


@caught_by_area("fidelity")
class SortsTags(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, tags=sorted(item.tags))


@caught_by_area("fidelity")
class DropsExtensions(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return MemoryInput.model_construct(item.model_fields_set - item.extensions.keys(), **{
            name: getattr(item, name) for name in type(item).model_fields
        })  # fmt: skip


@caught_by_area("fidelity")
class DropsTheSourcesRef(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, source=item.source and changed(item.source, ref=None))


@caught_by_area("fidelity")
class CutsLongContent(Inbound):
    def spoil(self, item: MemoryInput) -> MemoryInput:
        return changed(item, content=item.content[:65_535])


# Filters


@caught_by_area("filters")
class UnderscoreIsAWildcard(Lister):
    def selects(self, filter: str, scope: str) -> bool:
        connection = sqlite3.connect(":memory:")
        try:
            found = connection.execute("SELECT ? = ? OR ? LIKE ? || '/%'", (scope, filter, scope, filter))
            return bool(found.fetchone()[0])
        finally:
            connection.close()


@caught_by_area("filters")
class PrefixWithoutASlash(Lister):
    def selects(self, filter: str, scope: str) -> bool:
        return scope.startswith(filter)


@caught_by_area("filters")
class ScopeMatchesTheNodeOnly(Lister):
    def selects(self, filter: str, scope: str) -> bool:
        return scope == filter


@caught_by_area("filters")
class ScopesIgnoreCase(Lister):
    def selects(self, filter: str, scope: str) -> bool:
        return f"{scope}/".casefold().startswith(f"{filter}/".casefold())


@caught_by_area("filters")
class SearchDropsTheScope(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await super().search(changed(query, scope=None))


@caught_by_area("filters")
class FiltersAfterTheLimit(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(changed(query, tags=()))
        return changed(page, items=[r for r in page.items if set(query.tags) <= set(r.tags)])


@caught_by_area("filters")
class TagIsASubstring(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        if not query.tags:
            return await super().list(query)
        page = await super().list(changed(query, tags=(), limit=500))
        return changed(page, items=[r for r in page.items if query.tags[0] in ",".join(r.tags)])


@caught_by_area("filters")
class EmptiesEveryTag(Sqlite):
    async def delete_all(self, filters: Filters) -> int:
        return await super().delete_all(changed(filters, tags=()))


@caught_by_area("filters")
class SinceIsExclusive(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        return await super().list(changed(query, since=query.since and query.since + TICK))


# Paging


@caught_by_area("paging")
class CapsAListSilently(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(changed(query, limit=min(query.limit, 100)))
        return changed(page, next_cursor=None) if query.limit > 100 else page


@caught_by_area("paging")
class CountsRowsToSkip(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        skip = int(query.cursor) if query.cursor and query.cursor.isdecimal() else 0
        everything = await super().list(changed(query, cursor=None, limit=500))
        items = everything.items[skip : skip + query.limit]
        more = len(everything.items) > skip + query.limit
        return MemoryPage(items=items, next_cursor=str(skip + query.limit) if more else None)


@caught_by_area("paging")
class StartsAgainOnABadCursor(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        try:
            return await super().list(query)
        except InvalidRequestError:
            return await super().list(changed(query, cursor=None))


@caught_by_area("paging")
class PromisesAnEmptyPage(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        if len(page.items) == query.limit and page.next_cursor is None:
            last = page.items[-1]
            return changed(page, next_cursor=encode_cursor(query, last.created_at, last.id))
        return page


@caught_by_area("paging")
class ListsOldestFirst(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        return changed(page, items=page.items[::-1])


@caught_by_area("paging")
class SkipsARowBetweenPages(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        return changed(page, items=page.items[1:]) if query.cursor else page


# Search


@caught_by_area("search")
class FindsTheDeleted(Sqlite):
    gone: ClassVar[list[MemoryRecord]] = []

    async def delete(self, ref: RecordRef) -> None:
        record = await super().get(ref)
        await super().delete(ref)
        self.gone.append(record)

    async def search(self, query: SearchQuery) -> SearchResults:
        ghosts = [SearchResult(memory=r, score=0.0) for r in self.gone if r.user_id == query.user_id]
        return [*await super().search(query), *ghosts]


@caught_by_area("search")
class ShowsTheOldText(Sqlite):
    old: ClassVar[dict[str, MemoryRecord]] = {}

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self.old[ref.id] = await super().get(ref)
        return await super().update(ref, changes)

    async def search(self, query: SearchQuery) -> SearchResults:
        return [changed(hit, memory=self.old.get(hit.memory.id, hit.memory)) for hit in await super().search(query)]


@caught_by_area("search")
class WorstFirst(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return (await super().search(query))[::-1]


@caught_by_area("search")
class ScoresAreDistances(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return [changed(hit, score=1.0 + hit.score) for hit in await super().search(query)]


@caught_by_area("search")
class IgnoresMinScore(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await super().search(changed(query, min_score=None))


@caught_by_area("search")
class ReturnsOneTooMany(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await super().search(changed(query, limit=query.limit + 1))


@caught_by_area("search")
class QueriesAreSyntax(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        if query.query.count('"') % 2:
            raise ProviderError("fts5: syntax error")
        return await super().search(query)


@caught_by_area("search")
class FindsTwice(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        hits = await super().search(query)
        return [*hits[:1], *hits][: query.limit]


# Context


@caught_by_area("context")
class ExceedsTheBudgetByOne(Sqlite):
    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        return await super().context(changed(query, token_budget=query.token_budget + 1), count_tokens)


@caught_by_area("context")
class CountsInItsOwnWay(Sqlite):
    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        return await super().context(query, estimate_tokens)


@caught_by_area("context")
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


@caught_by_area("context")
class CitesBackwards(Sqlite):
    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        block = await super().context(query, count_tokens)
        return changed(block, citations=block.citations[::-1])


# Time and supersession


@caught_by_area("time")
class IgnoresAsOf(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await super().search(changed(query, as_of=None))


@caught_by_area("time")
class TheEndIsIncluded(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        return await super().list(changed(query, as_of=query.as_of and query.as_of - TICK))


@caught_by_area("time")
class ListHidesTheExpired(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        return changed(page, items=[r for r in page.items if r.valid_to is None]) if query.as_of is None else page


@caught_by_area("supersession")
class ForgetsToMark(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        record = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        return changed(record, supersedes=item.supersedes)


@caught_by_area("supersession")
class ChecksAfterWriting(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        record = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        for old in item.supersedes:
            record = await super().update(RecordRef(id=record.id), MemoryUpdate(supersedes=[old]))
        return record


@caught_by_area("supersession")
class ReplacesWhatIsSuperseded(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.supersedes:
            await super().update(ref, MemoryUpdate(supersedes=None))
        return await super().update(ref, changes)


# Idempotency


@caught_by_area("idempotency")
class IgnoresTheKey(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await super().add(item, idempotency_key=uuid.uuid4().hex)


@caught_by_area("idempotency")
class TheFirstWinsSilently(Sqlite):
    firsts: ClassVar[dict[tuple[str, str], MemoryRecord]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        key = (item.user_id, idempotency_key)
        with contextlib.suppress(ConflictError):
            self.firsts[key] = await super().add(item, idempotency_key=idempotency_key)
        return self.firsts[key]


@caught_by_area("idempotency")
class LooksUpBeforeItWrites(Sqlite):
    keys: ClassVar[dict[tuple[str, str], tuple[MemoryInput, MemoryRecord]]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        key = (item.user_id, idempotency_key)
        if key not in self.keys:
            self.keys[key] = (item, await super().add(item, idempotency_key=uuid.uuid4().hex))
        if self.keys[key][0] != item:
            raise ConflictError("the key was used before")
        return self.keys[key][1]


@caught_by_area("idempotency", "isolation")
class KeysAreEverybodys(Sqlite):
    keys: ClassVar[dict[str, MemoryRecord]] = {}

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        if idempotency_key not in self.keys:
            self.keys[idempotency_key] = await super().add(item, idempotency_key=idempotency_key)
        return self.keys[idempotency_key]


# Isolation


@caught_by_area("isolation")
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


@caught_by_area("isolation")
class GetIgnoresTheUser(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        return await super().get(changed(ref, user_id=None))


@caught_by_area("isolation")
class DeleteIgnoresTheUser(Sqlite):
    async def delete(self, ref: RecordRef) -> None:
        await super().delete(changed(ref, user_id=None))


@caught_by_area("isolation")
class TrimsUserIds(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        page = await super().list(query)
        trimmed = query.user_id.strip()
        return page if trimmed == query.user_id else await super().list(changed(query, user_id=trimmed))


@caught_by_area("isolation")
class TellsForeignFromUnknown(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except NotFoundError:
            await super().get(changed(ref, user_id=None))
            raise NotFoundError("this memory belongs to somebody else") from None


# Errors


@caught_by_area("errors")
class ValidatesAfterWriting(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        if changes.content:
            await super().update(ref, MemoryUpdate(content=changes.content))
        return await super().update(ref, changes)


@caught_by_area("errors", "every verb")
class QuotesTheContent(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except ConflictError:
            raise ConflictError(f"the key was used before, not for {item.content!r}") from None


@caught_by_area("errors", "every verb")
class LogsTheContent(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        _log.debug("adding %r", item)
        return await super().add(item, idempotency_key=idempotency_key)


@caught_by_area("errors")
class LeaksTheDsn(Sqlite):
    async def open(self) -> None:
        try:
            await super().open()
        except ProviderError as error:
            raise ProviderUnavailableError(f"cannot reach postgresql://app:{PASSWORD}@db/memory") from error


@caught_by_area("errors")
class PassesTheVendorsErrorOn(Sqlite):
    async def open(self) -> None:
        try:
            await super().open()
        except ProviderError as error:
            raise ConnectionRefusedError("connect call failed") from error


# Audit and ingestion


@caught_by_area("audit")
class AuditsOldestFirst(Sqlite):
    async def audit(self, query: AuditQuery) -> AuditEntries:
        return (await super().audit(query))[::-1]


@caught_by_area("audit")
class ForgetsDeletes(Sqlite):
    async def audit(self, query: AuditQuery) -> AuditEntries:
        return [entry for entry in await super().audit(query) if entry.action != "delete"]


@caught_by_area("audit")
class AuditsTheQuery(Sqlite):
    last: ClassVar[list[str]] = []

    async def search(self, query: SearchQuery) -> SearchResults:
        self.last.append(query.query)
        return await super().search(query)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        return [
            changed(e, scope=" ".join(self.last)) if e.action == "search" else e for e in await super().audit(query)
        ]


@caught_by_area("audit")
class NeverFlushesReads(Sqlite):
    def _record_read(self, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
        return None


@caught_by_area("ingestion", "capabilities")
class IsQueuedForEver(Outbound):
    def spoil(self, record: MemoryRecord) -> MemoryRecord:
        return changed(record, status="queued")


# Lifecycle


@caught_by_area("lifecycle")
class ConnectsInItsConstructor(Sqlite):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        time.sleep(0.02)


@caught_by_area("lifecycle")
class ClosesOnlyOnce(Sqlite):
    closed = False

    async def close(self) -> None:
        if self.closed:
            raise ProviderError("already closed")
        self.closed = True
        await super().close()


@caught_by_area("lifecycle")
class LeaksAThread(Sqlite):
    async def open(self) -> None:
        await super().open()
        threading.Thread(target=threading.Event().wait, args=(20.0,), daemon=True, name="poller").start()


@caught_by_area("lifecycle")
class LeaksAFile(Sqlite):
    files: ClassVar[list[Any]] = []

    async def open(self) -> None:
        await super().open()
        self.files.append(await asyncio.to_thread(tempfile.TemporaryFile))


@caught_by_area("lifecycle")
class LeaksATask(Sqlite):
    async def open(self) -> None:
        await super().open()
        self._poller = asyncio.create_task(asyncio.sleep(20.0))


@caught_by_area("lifecycle")
class KeepsTheLoopInAFork(Sqlite):
    process: ClassVar[list[int]] = []

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.process.append(os.getpid())
        if len(set(self.process)) > 1:
            raise ProviderError("the connection belongs to another process")
        return await super().get(ref)


# Concurrency


@caught_by_area("concurrency", "every verb")
class BlocksTheLoop(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        time.sleep(0.03)  # noqa: ASYNC251 - the bug
        return await super().add(item, idempotency_key=idempotency_key)


@caught_by_area("concurrency", "every verb")
class MixesUpResults(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        self._last = await super().add(item, idempotency_key=idempotency_key)
        await asyncio.sleep(0.002)
        return self._last


@caught_by_area("concurrency")
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


@caught_by_area("concurrency")
class ReadsModifiesWrites(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        before = await super().get(ref)
        names = ("content", "scope", "tags", "confidence", "valid_to")
        return await super().update(ref, MemoryUpdate(**{**{n: getattr(before, n) for n in names}, **changes.changes}))


@caught_by_area("every verb")
class AThreadForEachCall(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
        return await super().add(item, idempotency_key=idempotency_key)


# Cancellation


@caught_by_area("cancellation")
class SwallowsACancellation(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except asyncio.CancelledError:
            return await super().add(item, idempotency_key=idempotency_key)


@caught_by_area("cancellation")
class RenamesACancellation(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except asyncio.CancelledError:
            raise ProviderError("the call was interrupted") from None


@caught_by_area("cancellation")
class WritesInTwoSteps(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        bare = await super().add(changed(item, supersedes=[]), idempotency_key=idempotency_key)
        if not item.supersedes:
            return bare
        return await super().update(RecordRef(id=bare.id), MemoryUpdate(supersedes=item.supersedes))


@caught_by_area("cancellation")
class UpdatesInTwoSteps(Sqlite):
    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        record = await super().get(ref)
        for name, value in changes.changes.items():
            record = await super().update(ref, MemoryUpdate(**{name: value}))
        return record


@caught_by_area("cancellation")
class TidiesUpSlowly(Sqlite):
    async def list(self, query: ListQuery) -> MemoryPage:
        try:
            return await super().list(query)
        finally:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(asyncio.sleep(0.1))


@caught_by_area("cancellation")
class KeepsALock(Sqlite):
    _lock: asyncio.Lock | None = None

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        self._lock = self._lock or asyncio.Lock()
        await self._lock.acquire()
        record = await super().update(ref, changes)
        self._lock.release()
        return record


@caught_by_area("cancellation")
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


@caught_by_area("cancellation")
class KeepsAConnection(Sqlite):
    in_use = 0

    async def get(self, ref: RecordRef) -> MemoryRecord:
        self.in_use += 1
        record = await super().get(ref)
        self.in_use -= 1
        return record


@caught_by_area("cancellation")
class WritesAfterwards(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await asyncio.shield(asyncio.ensure_future(super().add(item, idempotency_key=idempotency_key)))


@caught_by_area("cancellation")
class LeavesATaskBehind(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        try:
            return await super().get(ref)
        except asyncio.CancelledError:
            self._cleaning = asyncio.create_task(asyncio.sleep(20.0))
            raise


@caught_by_area("cancellation")
class OpensHalfWay(Sqlite):
    files: ClassVar[list[Any]] = []

    async def open(self) -> None:
        self.files.append(await asyncio.to_thread(tempfile.TemporaryFile))
        await super().open()

    async def close(self) -> None:
        if self._audit_buffer is not None:
            self.files.pop().close()
        await super().close()


@caught_by_area("storm")
class LosesThreadsInAStorm(Sqlite):
    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        try:
            return await super().add(item, idempotency_key=idempotency_key)
        except asyncio.CancelledError:
            threading.Thread(target=time.sleep, args=(5.0,), daemon=True).start()
            raise


# Capabilities


class Claims(Sqlite):
    """Declares something else than it does."""

    claims: ClassVar[dict[str, Any]] = {}

    async def capabilities(self) -> Capabilities:
        real = await super().capabilities()
        support = {k: v for k, v in real.x_openproto.support.items() if k not in self.claims}
        details = changed(real.x_openproto, support=support)
        return changed(real, features=changed(real.features, **self.claims), x_openproto=details)


@caught_by_area("capabilities")
class ClaimsVectors(Claims):
    claims: ClassVar[dict[str, Any]] = {"vector_search": True}


@caught_by_area("capabilities")
class HidesTemporal(Claims):
    claims: ClassVar[dict[str, Any]] = {"temporal": False}


@caught_by_area("capabilities")
class HidesItsAudit(Claims):
    claims: ClassVar[dict[str, Any]] = {"supports_audit": False}


@caught_by_area("capabilities")
class ClaimsToTakeLess(Claims):
    claims: ClassVar[dict[str, Any]] = {"max_content_length": 5_000}


@caught_by_area("capabilities")
class ClaimsAnotherTier(Sqlite):
    async def capabilities(self) -> Capabilities:
        real = await super().capabilities()
        return changed(real, x_openproto=changed(real.x_openproto, cancellation="aborting"))


@caught_by_area("capabilities")
class HidesAVerb(Sqlite):
    async def capabilities(self) -> Capabilities:
        real = await super().capabilities()
        return changed(real, verbs=[verb for verb in real.verbs if verb != "audit"])


@caught_by_area("capabilities")
class ClaimsAVerbItRefuses(Sqlite):
    async def audit(self, query: AuditQuery) -> AuditEntries:
        raise self.unsupported("audit")


@caught_by_area("capabilities")
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
