"""`Layer`: a provider around another one, which delegates everything; a subclass overrides what it adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Self

from openproto.context import TokenCounter
from openproto.models import (
    Capabilities,
    ContextBlock,
    MemoryPage,
    MemoryRecord,
    Operation,
    PutResult,
    Snapshot,
    UserPage,
    UserPart,
    Verb,
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


class Layer(Provider):
    """`inner` under its own name: every verb and every helper is the inner provider's."""

    def __init__(self, inner: Provider, /) -> None:
        self.inner = inner
        self.name = inner.name
        self.cancellation = inner.cancellation

    async def open(self) -> None:
        """Open the inner provider, which may learn its name by that."""
        await self.inner.open()
        self.name = self.inner.name

    async def close(self) -> None:
        """Close the inner provider."""
        await self.inner.close()

    def fresh(self) -> Self:
        """Return an unopened layer with the same options around a fresh inner provider."""
        (_, *args), options = self._made_of
        return type(self)(self.inner.fresh(), *args, **options)

    @property
    def verbs(self) -> frozenset[Verb]:
        """The inner provider's verbs."""
        return self.inner.verbs

    @property
    def operations(self) -> frozenset[Operation]:
        """What the inner provider has beyond its verbs."""
        return self.inner.operations

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        """Add through the inner provider."""
        return await self.inner.add(item, idempotency_key=idempotency_key)

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        """Add the batch through the inner provider."""
        return await self.inner.add_many(items)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the inner provider's record."""
        return await self.inner.get(ref)

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        """Update through the inner provider."""
        return await self.inner.update(ref, changes)

    async def delete(self, ref: RecordRef) -> None:
        """Delete through the inner provider."""
        await self.inner.delete(ref)

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        """Return the inner provider's record of that key."""
        return await self.inner.get_by_key(ref)

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        """Put through the inner provider."""
        return await self.inner.put(item, if_version=if_version)

    async def scopes(self, query: ScopesQuery) -> ScopeCounts:
        """Return the inner provider's counts."""
        return await self.inner.scopes(query)

    async def users(self, query: UsersQuery) -> UserPage:
        """Return the inner provider's page."""
        return await self.inner.users(query)

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        """Restore through the inner provider."""
        return await self.inner.restore(records)

    def snapshot(self, *, vectors: bool) -> AbstractAsyncContextManager[Snapshot]:
        """Return the inner provider's snapshot."""
        return self.inner.snapshot(vectors=vectors)

    async def load(
        self, parts: Sequence[UserPart], *, model: str | None, app: str | None, include_deleted: bool
    ) -> RestoreOutcomes:
        """Load into the inner provider."""
        return await self.inner.load(parts, model=model, app=app, include_deleted=include_deleted)

    async def delete_all(self, filters: Filters) -> int:
        """Delete what the filters select through the inner provider."""
        return await self.inner.delete_all(filters)

    async def list(self, query: ListQuery) -> MemoryPage:
        """Return the inner provider's page."""
        return await self.inner.list(query)

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the inner provider's results."""
        return await self.inner.search(query)

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return the inner provider's context block."""
        return await self.inner.context(query, count_tokens)

    async def audit(self, query: AuditQuery) -> AuditEntries:
        """Return the inner provider's entries."""
        return await self.inner.audit(query)

    async def capabilities(self) -> Capabilities:
        """Return what the inner provider declares."""
        return await self.inner.capabilities()

    async def health(self) -> None:
        """Return if the inner provider works now."""
        await self.inner.health()

    async def describe(self) -> dict[str, str]:
        """Return what the inner provider says of itself."""
        return await self.inner.describe()

    async def reindex(self, report: Callable[[ReindexProgress], None]) -> None:
        """Re-embed the inner provider's records."""
        await self.inner.reindex(report)

    async def index_user(self, user_id: str, report: Callable[[ReindexProgress], None], *, drop: bool) -> float | None:
        """Index one user's records in the inner provider."""
        return await self.inner.index_user(user_id, report, drop=drop)

    def schema_script(self, *, distribute: bool = False) -> str:
        """Return the inner provider's script."""
        return self.inner.schema_script(distribute=distribute)
