"""A provider that keeps memories in a dictionary and has every operation, each in one step of the loop."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from openproto.errors import ConflictError, NotFoundError
from openproto.models import (
    VERBS,
    Cancellation,
    Capabilities,
    MemoryPage,
    MemoryRecord,
    PutResult,
    RestoreOutcome,
    SearchResult,
    SupportDetails,
    UserPage,
)
from openproto.provider import Provider, RestoreOutcomes, SearchResults
from openproto.requests import KeyRef, ListQuery, MemoryInput, MemoryUpdate, RecordRef, SearchQuery, UsersQuery


class Shelf(Provider):
    """Every verb but `audit`, and keys, versions, `put`, `scopes`, `users`, and `restore`."""

    name = "shelf"
    cancellation: Cancellation = "native"

    def __init__(self) -> None:
        self.records: dict[str, MemoryRecord] = {}
        self._numbers = itertools.count(1)

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        if item.key is not None and self._of_key(item.user_id, item.key) is not None:
            raise ConflictError("another memory has this key")
        return self._write(f"m{next(self._numbers)}", datetime.now(UTC), item)

    async def put(self, item: MemoryInput, *, if_version: str | None) -> PutResult:
        old = self._of_key(item.user_id, item.key or "")
        if if_version not in (None, old.version if old else "absent"):
            raise ConflictError("the memory has another version")
        if old is None:
            return PutResult(record=await self.add(item, idempotency_key=""), created=True)
        return PutResult(record=self._write(old.id, old.created_at, item, updated_at=datetime.now(UTC)), created=False)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        found = self.records.get(ref.id)
        if found is None or ref.user_id not in (None, found.user_id):
            raise NotFoundError("no such memory")
        if ref.if_version not in (None, found.version):
            raise ConflictError("the memory has another version")
        return found

    async def get_by_key(self, ref: KeyRef) -> MemoryRecord:
        found = self._of_key(ref.user_id, ref.key)
        if found is None:
            raise NotFoundError("no such memory")
        return found

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        old = await self.get(ref)
        changed = {**changes.model_dump(include={*changes.changes}), **changes.extensions}
        fields = {**old.model_dump(), **changed, "updated_at": datetime.now(UTC)}
        return self._store(fields)

    async def delete(self, ref: RecordRef) -> None:
        del self.records[(await self.get(ref)).id]

    async def list(self, query: ListQuery) -> MemoryPage:
        of_user = [record for record in self.records.values() if record.user_id == query.user_id]
        of_user.sort(key=lambda record: (record.created_at, record.id), reverse=True)
        return MemoryPage(items=[record for record in of_user if {*query.tags} <= {*record.tags}][: query.limit])

    async def search(self, query: SearchQuery) -> SearchResults:
        page = await self.list(ListQuery(user_id=query.user_id, tags=query.tags))
        return [SearchResult(memory=each, score=1) for each in page.items if query.query in each.content]

    async def users(self, query: UsersQuery) -> UserPage:
        found = sorted({record.user_id for record in self.records.values()} - {""})
        rest = [user for user in found if user > (query.cursor or "")]
        more = rest[query.limit - 1] if len(rest) > query.limit else None
        return UserPage(items=rest[: query.limit], next_cursor=more)

    async def restore(self, records: Sequence[MemoryRecord]) -> RestoreOutcomes:
        outcomes: RestoreOutcomes = []
        for record in records:
            old = self.records.setdefault(record.id, record)
            outcome = "restored" if old is record else "exists" if old.user_id == record.user_id else "refused"
            error = "another user's memory has this id" if outcome == "refused" else None
            outcomes.append(RestoreOutcome(id=record.id, user_id=record.user_id, outcome=outcome, error=error))
        return outcomes

    async def capabilities(self) -> Capabilities:
        support = SupportDetails(cancellation="native", support=dict.fromkeys(self.operations, "native"))
        verbs = [verb for verb in VERBS if verb in self.verbs]
        return Capabilities(provider="shelf", verbs=verbs, x_openproto=support)

    def _of_key(self, user_id: str, key: str) -> MemoryRecord | None:
        for record in self.records.values():
            if (record.user_id, record.key) == (user_id, key):
                return record
        return None

    def _write(self, id: str, created_at: datetime, item: MemoryInput, **fields: Any) -> MemoryRecord:
        return self._store({**item.model_dump(), "id": id, "created_at": created_at, **fields})

    def _store(self, fields: dict[str, Any]) -> MemoryRecord:
        record = MemoryRecord.model_validate({**fields, "version": f"v{next(self._numbers)}"})
        self.records[record.id] = record
        return record
