"""The sqlite provider: every verb of the protocol over one file, in the plainest form that keeps every rule.

A verb prepares what it can (validation is done, the vector is made), then runs one function over a connection:
`read` sees one unchanging state, `write` is one transaction that holds the change, its audit entry, and what it
supersedes. Those functions are in `statements.py`, in the order of the verbs.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from platformdirs import user_data_path

from openproto.context import TokenCounter, fill_context
from openproto.embedding import resolve_embedder
from openproto.errors import NotFoundError, OpenProtoError
from openproto.fields import check_seconds, check_whole
from openproto.models import (
    Cancellation,
    Capabilities,
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    PutResult,
    UserPage,
    UserPart,
)
from openproto.provider import (
    AuditEntries,
    KeyedInput,
    Outcomes,
    Provider,
    ReindexProgress,
    RestoreOutcomes,
    ScopeCounts,
    SearchResults,
    current_call,
    generated_key,
    new_request_id,
)
from openproto.requests import (
    AuditQuery,
    ContextQuery,
    Filters,
    KeyRef,
    ListQuery,
    MemoryInput,
    MemoryUpdate,
    RecordRef,
    ScopesQuery,
    SearchQuery,
    UsersQuery,
)
from openproto.stores.audit_buffer import AuditBuffer, AuditRow, audit_row
from openproto.stores.cursors import decode_cursor
from openproto.stores.indexer import EmbedderSpec, Indexer, store_capabilities
from openproto.stores.restoring import as_stored, index_records
from openproto_adapters.sqlite import adding, statements
from openproto_adapters.sqlite.database import Database, Synchronous
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.location import file_at
from openproto_adapters.sqlite.reindexing import reindex
from openproto_adapters.sqlite.restoring import load, restore
from openproto_adapters.sqlite.searching import search
from openproto_adapters.sqlite.snapshot import SqliteSnapshot
from openproto_adapters.sqlite.word_index import without_words

if TYPE_CHECKING:
    from openproto_adapters.sqlite.user_rows import SearchCache, UserRows

T = TypeVar("T")
R = TypeVar("R", bound=MemoryRecord | OpenProtoError)

READERS = 3


class Sqlite(Provider):
    """Memories in one SQLite file, shared safely by threads and processes of one machine.

    Args:
        path: The file; by default `memory.db` in the user's data directory. `~` and `sqlite:///memory.db` mean what
            they say. The first write makes the file, and its folder; a file that may only be read can be read.
        embedder: "auto" (the local embedder where it is installed), "local", "openai/<model>", "none", or an object.
        audit_reads: Whether reads are recorded in the audit log too.
        lock_timeout: Seconds to wait for another process that is writing.
        synchronous: "full" loses nothing when the power fails; "normal" is faster and may lose the last moments.
        search_cache_mb: Megabytes for what searches keep of the users that were searched for last; with 0 nothing, and
            every search reads all of its user's vectors.
    """

    name = "sqlite"
    on_duplicate = explain = True
    cancellation: Cancellation = "native"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        embedder: EmbedderSpec = "auto",
        audit_reads: bool = True,
        lock_timeout: float = 10.0,
        synchronous: Synchronous = "full",
        search_cache_mb: int = 256,
    ) -> None:
        if synchronous not in ("full", "normal"):
            raise ValueError("synchronous must be 'full' or 'normal'")
        check_seconds(lock_timeout=lock_timeout, or_zero=True)
        check_whole(0, search_cache_mb=search_cache_mb)
        self._path = file_at(path) if path is not None else None
        resolve_embedder(embedder)  # an unknown name is an error when the client is made
        self._embedder: EmbedderSpec = embedder
        self._audit_reads = audit_reads
        self._lock_timeout = lock_timeout
        self._synchronous: Synchronous = synchronous
        self._search_cache_bytes = search_cache_mb * 1_000_000
        self._search_cache: SearchCache | None = None
        self._indexer: Indexer[None] | None = None
        self._database: Database | None = None
        self._audit_buffer: AuditBuffer | None = None

    async def open(self) -> None:
        """Open the file if there is one, load the embedder, and make sure that they fit each other."""
        try:
            await self._open_file()
            self._indexer = Indexer(self._embedder, without_words)
            await self._indexer.open(await self._db.read(statements.stored_model))
            self._audit_buffer = AuditBuffer(self._write_reads)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Write the audit entries that wait, then release the file and the embedder."""
        buffer, self._audit_buffer = self._audit_buffer, None
        try:
            if buffer is not None:
                await buffer.close()
        finally:
            indexer, self._indexer = self._indexer, None
            self._search_cache = None
            database, self._database = self._database, None
            try:
                if database is not None:
                    await database.close()
            finally:
                if indexer is not None:  # the last, for an embedder's own code may hang
                    await indexer.close()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Store the memory; its audit entry and what it supersedes are part of the same transaction."""
        new = await self._index.index(KeyedInput(item, idempotency_key))
        return self._noted(await self._db.write_part(self._write_batch, (new, current_call.get())))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Store the batch in one transaction; an item that is refused leaves the others alone."""
        call = current_call.get()
        batch = await self._index.index_many(items, lambda batch: [(new, call) for new in batch])
        return [self._noted(outcome) for outcome in await self._db.write_alone(lambda db: self._write_batch(db, batch))]

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record."""
        record = await self._db.get(statements.get_each, ref)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Apply the changes; new content is embedded and indexed."""
        content = changes.changes.get("content")
        new = await self._index.index_content(content) if content is not None else None

        def write(db: Connection) -> MemoryRecord:
            if new is not None:
                self._adopt_model(db)
            record = statements.update(db, ref, changes, new)
            statements.write_audit(db, [audit_row(record.user_id, memory_id=record.id, scope=record.scope)])
            return record

        return await self._change(write)

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Create or replace the record of that key, with its audit entry, in one transaction."""
        new = await self._index.index(KeyedInput(item, generated_key(item.user_id)))

        def write(db: Connection) -> PutResult:
            self._adopt_model(db)
            return adding.put(db, new, if_version, self._index.model)

        return await self._db.write(write)

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Write the records as they are, in one transaction, with new vectors."""
        stored = as_stored(records)
        batch = await index_records(self._index, stored)

        def write(db: Connection) -> RestoreOutcomes:
            self._adopt_model(db)
            return restore(db, stored, batch, lambda r: audit_row(r.user_id, memory_id=r.id, scope=r.scope))

        return await self._db.write_alone(write)

    @asynccontextmanager
    async def snapshot(self, *, vectors: bool) -> AsyncIterator[SqliteSnapshot]:
        """Return the whole file as of now; who writes meanwhile does not wait."""
        await self._reads.flush()
        async with self._db.snapshot() as run:
            yield SqliteSnapshot(run, (await run(statements.stored_model)).model, vectors=vectors)

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Write the parts in one transaction."""
        batch = await index_records(self._index, [stored for part in parts for stored in part.records], model)
        caller = (app, new_request_id())

        def write(db: Connection) -> RestoreOutcomes:
            self._adopt_model(db)
            return load(db, parts, batch, caller, include_deleted=include_deleted)

        return await self._db.write_alone(write)

    async def delete(self, ref: RecordRef) -> None:
        """Remove the record and its words; only its idempotency key is remembered."""

        def write(db: Connection) -> None:
            owner, scope = statements.delete(db, ref)
            statements.write_audit(db, [audit_row(owner, memory_id=ref.id, scope=scope)])

        await self._change(write)

    async def delete_all(self, filters: Filters) -> int:
        """Remove every record that the filters select, in one transaction."""

        def write(db: Connection) -> int:
            gone = statements.delete_all(db, filters)
            entries = [audit_row(filters.user_id, memory_id=id, scope=scope) for id, scope in gone]
            statements.write_audit(db, entries)
            return len(gone)

        return await self._db.write_alone(write) if self._db.exists else 0

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the record."""
        record = await self._db.get(statements.get_each_by_key, ref)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the scopes in use, each with its number of records."""
        counts = await self._db.read_once(lambda db: statements.list_scopes(db, query))
        self._record_read(query.user_id, scope=query.prefix)
        return counts

    async def users(self, query: UsersQuery) -> UserPage:
        """Return a page of the users that have records."""
        return await self._db.read(lambda db: statements.list_users(db, query))

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return a page, newest first."""
        page = await self._list(query)
        self._record_read(query.user_id, scope=query.scope)
        return page

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the best current records: exact over all of the user's memories."""
        found = await self._search(query)
        self._record_read(query.user_id, scope=query.scope)
        return found

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return the block; the search and the listing behind it are one entry in the audit log."""
        block = await fill_context(query, count_tokens, self._search, self._list)
        self._record_read(query.user_id, scope=query.scope)
        return block

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the user's audit entries; reads that wait to be written are written first."""
        await self._reads.flush()
        entries = await self._db.read(lambda db: statements.list_audit(db, query))
        self._record_read(query.user_id, memory_id=query.memory_id)
        return entries

    async def capabilities(self) -> Capabilities:
        """Return what this file can do with its embedder."""
        return store_capabilities(self, vectors=self._index.model is not None)

    async def health(self) -> None:
        """Read one row."""
        await self._db.read(statements.stored_model)

    async def describe(self) -> dict[str, str]:
        """Return the file, what may be done with it, and SQLite's version."""
        access = {"access": f"read-only: {self._db.read_only}"} if self._db.read_only else {}
        taken = str(await self._db.read(statements.size))
        return {"file": str(self._db.path), **access, "SQLite": sqlite3.sqlite_version, "bytes": taken}

    async def reindex(self, report: Callable[[ReindexProgress], None]) -> None:
        """Re-embed the file with the configured embedder while others use it; see `reindexing.py`."""
        await self._open_file()
        self._indexer = Indexer(self._embedder, without_words)
        await self._indexer.load()
        await reindex(self._db, self._indexer, report)

    async def _open_file(self) -> None:
        self._database = Database(
            self._path or user_data_path("openproto") / "memory.db",
            readers=READERS,
            lock_timeout=self._lock_timeout,
            synchronous=self._synchronous,
        )
        await self._database.open()

    async def _list(self, query: ListQuery) -> MemoryPage:
        decode_cursor(query)
        return await self._db.read(lambda db: statements.list_page(db, query))

    async def _search(self, query: SearchQuery) -> SearchResults:
        indexed = await self._index.index_query(query.query)
        weights = self._index.weights

        def read(db: Connection) -> SearchResults:
            stored = statements.stored_model(db)
            if not stored.has_memories:
                return []
            self._index.check(stored.model, stored.dim)
            return search(db, query, indexed, weights, datetime.now(UTC), self._rows_of)

        return await self._db.search(read)

    def _rows_of(self, db: Connection, user_id: str) -> UserRows:
        if self._search_cache is None:
            from openproto_adapters.sqlite.user_rows import SearchCache  # only stores with vectors need NumPy

            self._search_cache = SearchCache(self._search_cache_bytes)
        return self._search_cache.rows(db, user_id, self._index.model, self._index.dim or 0)

    def _write_batch(self, db: Connection, batch: Sequence[adding.Asked]) -> Outcomes:
        self._adopt_model(db)
        return adding.add_many(db, batch, self._index.model)

    async def _change(self, write: Callable[[Connection], T]) -> T:
        """Write to the file; where there is none yet there is nothing to change, and none is made."""
        if not self._db.exists:
            raise NotFoundError("no such memory")
        return await self._db.write(write)

    def _adopt_model(self, db: Connection) -> None:
        """Give an empty file its model; a re-embedding by another process may have given it another meanwhile."""
        stored = statements.adopt_model(db, self._index.model, self._index.dim)
        self._index.check(stored.model, stored.dim)

    def _noted(self, outcome: R) -> R:
        """Return the outcome of an add; one that was skipped read a record and wrote none."""
        if isinstance(outcome, MemoryRecord) and outcome.duplicate_of is not None:
            self._record_read(outcome.user_id, memory_id=outcome.id)
        return outcome

    def _record_read(self, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
        if self._audit_reads:
            self._reads.record(audit_row(user_id, memory_id=memory_id, scope=scope))

    async def _write_reads(self, rows: Sequence[AuditRow]) -> None:
        # A read makes no file, and leaves no trace in one that may only be read.
        if self._db.exists and self._db.read_only is None:
            await self._db.write(lambda db: statements.write_audit(db, rows))

    @property
    def _db(self) -> Database:
        if self._database is None:
            raise self.closed_meanwhile()
        return self._database

    @property
    def _index(self) -> Indexer[None]:
        if self._indexer is None:
            raise self.closed_meanwhile()
        return self._indexer

    @property
    def _reads(self) -> AuditBuffer:
        if self._audit_buffer is None:
            raise self.closed_meanwhile()
        return self._audit_buffer
