"""ACME's memory: a file of JSON lines, as a provider for openproto.

It keeps, lists, and finds memories by their words. It knows no scopes, no time travel, no superseding, no updates, and
no audit log: its capabilities say so, and a call that asks for them is refused.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from openproto import (
    Capabilities,
    ConflictError,
    MemoryInput,
    MemoryPage,
    MemoryRecord,
    NotFoundError,
    ProviderUnavailableError,
    SearchResult,
)
from openproto.models import Cancellation, Features
from openproto.provider import Provider, SearchResults
from openproto.requests import Filters, ListQuery, RecordRef, SearchQuery
from openproto.stores.cursors import decode_cursor, encode_cursor
from openproto.stores.ranking import shares
from openproto.stores.words import query_terms, terms

Records: TypeAlias = list[MemoryRecord]


class Journal:
    """What ACME's server would hold: a line for each change, and what all of them come to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end = 0
        self.records: dict[str, MemoryRecord] = {}  # oldest first
        self.words: dict[str, set[int]] = {}  # found once for each record, for that takes longest
        self.keys: dict[tuple[str, str], str] = {}
        self._asked: dict[str, Any] = {}
        self.newest = datetime.min.replace(tzinfo=UTC)

    @contextmanager
    def locked(self) -> Iterator[Journal]:
        """Take in what other clients have written, and keep them out for the while."""
        try:
            file = self._path.open("a+b", buffering=0)
        except OSError as error:
            raise ProviderUnavailableError(f"the journal cannot be opened: {error.strerror}") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)  # threads too: each has opened the file separately
            self._file = file
            file.seek(self._end)
            for line in file.read().splitlines(keepends=True):
                self._take_in(json.loads(line))
                self._end += len(line)
            yield self

    def write(self, change: dict[str, Any]) -> None:
        """Add a line and take it in."""
        line = json.dumps(change).encode() + b"\n"
        self._file.write(line)
        self._take_in(change)
        self._end += len(line)

    def moment(self) -> datetime:
        """Return a moment that no record has yet, so that their order is that of their making."""
        return max(datetime.now(UTC), self.newest + timedelta(microseconds=1))

    def was_asked(self, id: str) -> Any:
        """Return the request that made a record."""
        return self._asked[id]

    def _take_in(self, change: dict[str, Any]) -> None:
        if "delete" in change:
            del self.records[change["delete"]], self.words[change["delete"]]
            return
        record = MemoryRecord.model_validate(change["add"])
        self.records[record.id] = record
        self.words[record.id] = set(terms(record.content))
        self.newest = record.created_at
        self.keys[record.user_id, change["key"]] = record.id
        self._asked[record.id] = change["asked"]


_JOURNALS: dict[Path, Journal] = {}
"""One for each file: the clients of a process need not read it again and again."""


def _journal(path: Path) -> Journal:
    return _JOURNALS.setdefault(path.resolve(), Journal(path))


class Acme(Provider):
    """Memories in a file of JSON lines, for trying things out.

    Args:
        path: The file; its folder must be there.
    """

    name = "acme"
    cancellation: Cancellation = "native"  # a verb waits before it begins, so it is never interrupted halfway

    def __init__(self, path: str = "acme.jsonl") -> None:
        self._path = path

    async def open(self) -> None:
        """Read the journal."""
        self._turn = asyncio.Lock()
        self._journal = _journal(Path(self._path))
        with self._journal.locked():
            pass

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory, unless this very request was made before."""
        if item.scope is not None:
            raise self.unsupported("scopes")
        if item.supersedes:
            raise self.unsupported("supersedes")
        asked = item.model_dump(mode="json")
        async with self._locked() as journal:
            known = journal.keys.get((item.user_id, idempotency_key))
            if known is not None:
                if known not in journal.records or journal.was_asked(known) != asked:
                    raise ConflictError("the idempotency key belongs to another memory", provider=self.name)
                return journal.records[known]
            record = MemoryRecord(id=str(uuid.uuid4()), created_at=journal.moment(), status="done", **item.model_dump())
            journal.write({"add": record.to_wire(), "key": idempotency_key, "asked": asked})
            return record

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        async with self._locked() as journal:
            return self._find(journal, ref)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record."""
        async with self._locked() as journal:
            journal.write({"delete": self._find(journal, ref).id})

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page, newest first."""
        after = decode_cursor(query)
        items = [
            record
            for record in await self._newest_first(query, query.as_of)
            if (after is None or (record.created_at, record.id) < after)
            and (query.since is None or record.created_at >= query.since)
            and (query.until is None or record.created_at <= query.until)
        ]
        page, more = items[: query.limit], len(items) > query.limit
        cursor = encode_cursor(query, page[-1].created_at, page[-1].id) if more else None
        return MemoryPage(items=page, next_cursor=cursor)

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the memories valid now that hold the query's words, those with its rarest words first."""
        now = datetime.now(UTC)
        records = [
            record
            for record in await self._newest_first(query, query.as_of)
            if (record.valid_from is None or record.valid_from <= now)
            and (record.valid_to is None or now < record.valid_to)
        ]
        words = [self._journal.words.get(record.id, set()) for record in records]
        scores = shares(query_terms(query.query), words)
        best = sorted(scores, key=lambda n: (-scores[n], n))
        hits = [SearchResult(memory=records[n], score=min(1.0, scores[n])) for n in best]
        return [hit for hit in hits if query.min_score is None or hit.score >= query.min_score][: query.limit]

    async def capabilities(self) -> Capabilities:
        """Add the one feature to the verbs, which are declared by being there."""
        declared = await super().capabilities()
        return declared.model_copy(update={"features": Features(keyword_search=True)})

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[Journal]:
        # Calls that come together take turns, and the loop is free between any two of them.
        async with self._turn:
            await asyncio.sleep(0)
            with self._journal.locked() as journal:
                yield journal

    def _find(self, journal: Journal, ref: RecordRef) -> MemoryRecord:
        record = journal.records.get(ref.id)
        if record is None or ref.user_id not in (None, record.user_id):
            raise NotFoundError("no such memory", provider=self.name)
        return record

    async def _newest_first(self, filters: Filters, as_of: datetime | None) -> Records:
        if filters.scope is not None:
            raise self.unsupported("scopes")
        if as_of is not None:
            raise self.unsupported("as_of")
        async with self._locked() as journal:
            return [
                record
                for record in reversed(journal.records.values())
                if record.user_id == filters.user_id and set(filters.tags) <= set(record.tags)
            ]
