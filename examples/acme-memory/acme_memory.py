"""ACME's memory: a dictionary in this process, as a provider for openproto.

It can keep, list, and find memories by their words. It knows no scopes, no time travel, no superseding, no updates,
and keeps no audit log; it says so in its capabilities, and refuses whoever asks for them.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from openproto import Capabilities, ConflictError, MemoryInput, MemoryPage, MemoryRecord, NotFoundError, SearchResult
from openproto.cursors import decode_cursor, encode_cursor
from openproto.models import Cancellation, Features
from openproto.provider import Provider, SearchResults
from openproto.ranking import coverage
from openproto.requests import Filters, ListQuery, RecordRef, SearchQuery
from openproto.text import query_terms, terms


class Store:
    """What ACME's server would hold: the records, oldest first, and the requests that made them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.records: dict[str, MemoryRecord] = {}
        self.requests: dict[tuple[str, str], tuple[MemoryInput, MemoryRecord]] = {}
        self.newest = datetime.min.replace(tzinfo=UTC)

    def now(self) -> datetime:
        """Return a moment that no record has yet, so that the order of the records is that of their making."""
        self.newest = max(datetime.now(UTC), self.newest + timedelta(microseconds=1))
        return self.newest


_STORES: dict[str, Store] = {}


class Acme(Provider):
    """Memories of this process, gone when it ends.

    Args:
        store: Providers that name the same store share it.
    """

    name: ClassVar[str] = "acme"
    cancellation: ClassVar[Cancellation] = "native"  # nothing here waits, so nothing can be interrupted halfway

    def __init__(self, store: str = "default") -> None:
        self._name = store

    async def open(self) -> None:
        """Find the store, or make it."""
        self._store = _STORES.setdefault(self._name, Store())

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory, unless this very request was made before."""
        if item.scope is not None:
            raise self.unsupported("scopes")
        if item.supersedes:
            raise self.unsupported("supersedes")
        with self._store.lock:
            before = self._store.requests.get((item.user_id, idempotency_key))
            if before is not None:
                if before[0] != item:
                    raise ConflictError("this idempotency key was used for another memory", provider=self.name)
                return before[1]
            record = MemoryRecord(
                id=str(uuid.uuid4()), created_at=self._store.now(), status="done", **item.model_dump()
            )
            self._store.requests[item.user_id, idempotency_key] = (item, record)
            self._store.records[record.id] = record
            return record

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        with self._store.lock:
            return self._find(ref)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record."""
        with self._store.lock:
            del self._store.records[self._find(ref).id]

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page, newest first."""
        if query.as_of is not None:
            raise self.unsupported("as_of")
        after = decode_cursor(query)
        items: list[MemoryRecord] = []
        with self._store.lock:
            for record in self._newest_first(query):
                if after is not None and (record.created_at, record.id) >= after:
                    continue
                if query.since is not None and record.created_at < query.since:
                    continue
                if query.until is not None and record.created_at > query.until:
                    continue
                if len(items) == query.limit:
                    last = items[-1]
                    return MemoryPage(items=items, next_cursor=encode_cursor(query, last.created_at, last.id))
                items.append(record)
        return MemoryPage(items=items)

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the memories that hold the query's words, those with its rarest words first."""
        if query.as_of is not None:
            raise self.unsupported("as_of")
        with self._store.lock:
            records = list(self._newest_first(query))
        words = [set(terms(record.content)) for record in records]
        postings = [[n for n, found in enumerate(words) if term in found] for term in query_terms(query.query)]
        scores = coverage(len(records), postings)
        hits = [SearchResult(memory=records[n], score=min(1.0, score)) for n, score in scores.items()]
        hits.sort(key=lambda hit: (-hit.score, -hit.memory.created_at.timestamp()))
        return [hit for hit in hits if query.min_score is None or hit.score >= query.min_score][: query.limit]

    async def capabilities(self) -> Capabilities:
        """Add to the verbs, which are known by being there, the one feature."""
        declared = await super().capabilities()
        return declared.model_copy(update={"features": Features(keyword_search=True)})

    def _find(self, ref: RecordRef) -> MemoryRecord:
        record = self._store.records.get(ref.id)
        if record is None or ref.user_id not in (None, record.user_id):
            raise NotFoundError("no such memory", provider=self.name)
        return record

    def _newest_first(self, filters: Filters) -> Iterator[MemoryRecord]:
        if filters.scope is not None:
            raise self.unsupported("scopes")
        for record in reversed(self._store.records.values()):
            if record.user_id == filters.user_id and (filters.tag is None or filters.tag in record.tags):
                yield record
