"""The audit journal: any provider, and next to it a record of who did what to whose memories (PROTOCOL §2, audit).

The journal cannot share the backend's transaction, so these rules keep the two together:

- A write's entry is in the journal before the verb returns. From the moment the backend has answered, nothing but the
  end of the process keeps the entry from being written: not a cancellation, nor the client's timeout.
- A write that was cancelled before the backend answered has no entry, though the backend may have carried it out;
  repeating an add under its idempotency key records it. `delete_all` goes record by record, so that all it removed
  before it was stopped is recorded; an `add_many` is recorded as a whole.
- While the journal is known to take no entries, writes are refused with the journal's own error, before the change. The
  first to find that out has changed the backend already: it succeeds, an ERROR is logged, and its entry is tried again
  until the journal takes it or the client is closed.
- Reads never wait for the journal; when it takes none for long, the oldest of 10 000 waiting read entries are dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from openproto.context import TokenCounter
from openproto.errors import NotFoundError, OpenProtoError
from openproto.fanout import gather_bounded
from openproto.layers.journals import journal_at
from openproto.layers.journals.journal import RETURNED, Journal
from openproto.layers.layer import Layer
from openproto.models import Capabilities, ContextBlock, MemoryPage, MemoryRecord, PutResult, UserPart, Verb
from openproto.provider import (
    AuditEntries,
    KeyedInput,
    Outcomes,
    Provider,
    RestoreOutcomes,
    ScopeCounts,
    SearchResults,
)
from openproto.requests import (
    MAX_LIST_LIMIT,
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
)
from openproto.stores.audit_buffer import AuditBuffer, AuditRow, audit_row

_log = logging.getLogger(__name__)

_AUDIT: frozenset[Verb] = frozenset({"audit"})


class Audited(Layer):
    """`inner` with an audit journal at `url`; everything but the verb `audit` is the inner provider's own.

    Raises ValueError for a URL of no journal, and for a provider that keeps an audit log itself: that one is written
    in the same transaction as the change, and a second one could only differ from it.
    """

    def __init__(self, inner: Provider, /, url: str, *, reads: bool = True) -> None:
        if "audit" in inner.verbs:
            raise ValueError(f"provider {inner.name!r} keeps an audit log already: leave out audit=")
        super().__init__(inner)
        self._url = url
        self._keeps_reads = reads
        self._journal: Journal = journal_at(url)
        self._journal_is_down = self._entries_wait = False
        self._reads: AuditBuffer | None = None
        self._writes: AuditBuffer | None = None

    @property
    def verbs(self) -> frozenset[Verb]:
        """The inner provider's verbs, and `audit`."""
        return self.inner.verbs | _AUDIT

    async def open(self) -> None:
        """Open the provider and the journal; when either cannot be had, neither is kept."""
        try:
            await super().open()
            await self._journal.open()
            self._reads, self._writes = AuditBuffer(self._append), AuditBuffer(self._append, of="write")
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the provider, write the entries that wait, and close the journal."""
        try:
            await super().close()
        finally:
            writes, reads, self._writes, self._reads = self._writes, self._reads, None, None
            try:
                if writes is not None and reads is not None:
                    await asyncio.gather(writes.close(), reads.close())
            finally:
                await self._journal.close()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Add through the provider; the journal passes over an add that it has recorded before."""
        await self._ensure_journal()
        record = await self.inner.add(item, idempotency_key=idempotency_key)
        await self._record_writes([_added(item, record)])
        return record

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Add the batch through the provider, with an entry for each memory that was stored."""
        await self._ensure_journal()
        outcomes = await self.inner.add_many(items)
        pairs = zip(items, outcomes, strict=True)
        await self._record_writes(
            [_added(keyed.item, outcome) for keyed, outcome in pairs if isinstance(outcome, MemoryRecord)]
        )
        return outcomes

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Update through the provider."""
        await self._ensure_journal()
        record = await self.inner.update(ref, changes)
        await self._record_writes([audit_row(record.user_id, memory_id=record.id, scope=record.scope)])
        return record

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Put through the provider: an add where the record is new, else an update."""
        await self._ensure_journal()
        result = await self.inner.put(item, if_version=if_version)
        entry = _added(item, result.record)
        await self._record_writes([entry if result.created else entry._replace(action="update")])
        return result

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Restore through the provider, with an entry for each record that was written."""
        await self._ensure_journal()
        return await self._record_restored(records, await self.inner.restore(records))

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Load into the provider, with an entry for each record that was written."""
        await self._ensure_journal()
        outcomes = await self.inner.load(parts, model=model, app=app, include_deleted=include_deleted)
        return await self._record_restored([stored.record for part in parts for stored in part.records], outcomes)

    async def _record_restored(self, records: Sequence[MemoryRecord], outcomes: RestoreOutcomes) -> RestoreOutcomes:
        pairs = zip(records, outcomes, strict=True)
        await self._record_writes(
            [
                audit_row(record.user_id, memory_id=record.id, scope=record.scope)._replace(action=RETURNED)
                for record, outcome in pairs
                if outcome.outcome == "restored"
            ]
        )
        return outcomes

    async def delete(self, ref: RecordRef) -> None:
        """Delete through the provider; without a user id the record is looked up first, to learn whose it was."""
        await self._ensure_journal()
        owner = ref.user_id or (await self.inner.get(ref)).user_id
        await self.inner.delete(ref.model_copy(update={"user_id": owner}))
        await self._record_writes([audit_row(owner, memory_id=ref.id)])

    async def delete_all(self, filters: Filters) -> int:
        """List what the filters select and delete it record by record, each with its entry."""
        await self._ensure_journal()
        writes = self._open(self._writes)
        query = ListQuery(user_id=filters.user_id, scope=filters.scope, tags=filters.tags, limit=MAX_LIST_LIMIT)
        deleted = 0
        more = True
        while more:
            page = await self.inner.list(query)
            deleted += sum(await gather_bounded((self._delete_one(record, writes) for record in page.items), limit=8))
            query = query.model_copy(update={"cursor": page.next_cursor})
            more = page.next_cursor is not None
        await self._record_writes([])
        return deleted

    async def _delete_one(self, record: MemoryRecord, writes: AuditBuffer) -> bool:
        try:
            await self.inner.delete(RecordRef(id=record.id, user_id=record.user_id))
        except NotFoundError:  # somebody else was faster
            return False
        writes.record(audit_row(record.user_id, memory_id=record.id, scope=record.scope))
        return True

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the provider's record."""
        record = await self.inner.get(ref)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the provider's record."""
        record = await self.inner.get_by_key(ref)
        self._record_read(record.user_id, memory_id=record.id)
        return record

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the provider's counts."""
        counts = await self.inner.scopes(query)
        self._record_read(query.user_id, scope=query.prefix)
        return counts

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the provider's page."""
        page = await self.inner.list(query)
        self._record_read(query.user_id, scope=query.scope)
        return page

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the provider's results."""
        found = await self.inner.search(query)
        self._record_read(query.user_id, scope=query.scope)
        return found

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return the provider's context block."""
        block = await self.inner.context(query, count_tokens)
        self._record_read(query.user_id, scope=query.scope)
        return block

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the journal's entries; those that wait to be written are written first."""
        await self._open(self._writes).flush()
        await self._open(self._reads).flush()
        entries = await self._journal.entries(query)
        self._record_read(query.user_id, memory_id=query.memory_id)
        return entries

    async def capabilities(self) -> Capabilities:
        """Return what the provider declares, with `audit` as emulated."""
        inner = await self.inner.capabilities()
        support = inner.x_openproto.support | {"audit": "emulated", "supports_audit": "emulated"}
        return inner.model_copy(
            update={
                "verbs": [*inner.verbs, "audit"],
                "features": inner.features.model_copy(update={"supports_audit": True}),
                "x_openproto": inner.x_openproto.model_copy(update={"support": support}),
            }
        )

    async def health(self) -> None:
        """Return if both the provider and the journal work now."""
        await self.inner.health()
        await self._append([])

    async def describe(self) -> dict[str, str]:
        """Return what the provider says of itself, and where the journal is."""
        return {**await self.inner.describe(), "audit journal": self._journal.place}

    async def _ensure_journal(self) -> None:
        """Raise the journal's error, before anything is changed, if it took no entries last time and still does not."""
        if self._journal_is_down:
            await self._append([])

    async def _append(self, rows: Sequence[AuditRow]) -> None:
        try:
            await self._journal.append(rows)
        except OpenProtoError:
            self._journal_is_down = True
            raise
        self._journal_is_down = False

    async def _record_writes(self, rows: Iterable[AuditRow]) -> None:
        # No await before this: between the backend's answer and here nothing can be cancelled.
        writes = self._open(self._writes)
        for row in rows:
            writes.record(row)
        try:
            await writes.flush()
        except OpenProtoError as error:
            if not self._entries_wait:  # of many at once, the first says so for all
                _log.error("audit: a write happened and its entry waits for the journal: %s", error.message)
            self._entries_wait = True
        else:
            self._entries_wait = False

    def _record_read(self, user_id: str, *, memory_id: str | None = None, scope: str | None = None) -> None:
        if self._keeps_reads:
            self._open(self._reads).record(audit_row(user_id, memory_id=memory_id, scope=scope))

    def _open(self, buffer: AuditBuffer | None) -> AuditBuffer:
        if buffer is None:
            raise self.closed_meanwhile()
        return buffer


def _added(item: MemoryInput, record: MemoryRecord) -> AuditRow:
    app = item.source.app if item.source else None
    return audit_row(item.user_id, memory_id=record.id, scope=item.scope, app=app)
