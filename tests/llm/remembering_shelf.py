"""A backend in memory that is as slow, as busy, or as broken as a test wants, and counts what reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from openproto import MemoryRecord, OpenProtoError, Provider, SearchResult
from openproto.provider import KeyedInput, Outcomes, SearchResults
from openproto.requests import MemoryInput, SearchQuery

KNOWN = ("ada", "Ada takes her coffee black")


class Shelf(Provider):
    name = "shelf"

    def __init__(self, *known: tuple[str, str]) -> None:
        """`known` are (user id, content) of memories that were there before; only these are found."""
        self.known = known
        self.kept: dict[str, MemoryRecord] = {}
        self.batches: list[int] = []
        self.in_flight = self.most_in_flight = 0
        self.searching = self.most_searching = 0
        self.add_seconds = self.search_seconds = 0.0
        self.failing: list[OpenProtoError] = []
        self.search_error: OpenProtoError | None = None
        self.queries: list[SearchQuery] = []
        self.released = asyncio.Event()
        self.released.set()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        (outcome,) = await self.add_many([KeyedInput(item, idempotency_key)])
        if isinstance(outcome, OpenProtoError):
            raise outcome
        return outcome

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        self.batches.append(len(items))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.add_seconds)
            await self.released.wait()
            return [self._add(keyed) for keyed in items]
        finally:
            self.in_flight -= 1

    def _add(self, keyed: KeyedInput) -> MemoryRecord | OpenProtoError:
        if self.failing:
            return self.failing.pop(0)
        fields = keyed.item.model_dump(exclude={"source"})
        new = MemoryRecord(**fields, id=f"m{len(self.kept)}", created_at=datetime.now(UTC))
        return self.kept.setdefault(keyed.idempotency_key, new)

    async def search(self, query: SearchQuery) -> SearchResults:
        self.queries.append(query)
        self.searching += 1
        self.most_searching = max(self.most_searching, self.searching)
        try:
            await asyncio.sleep(self.search_seconds)
        finally:
            self.searching -= 1
        if self.search_error:
            raise self.search_error
        now = datetime.now(UTC)
        return [
            SearchResult(memory=MemoryRecord(id=f"k{n}", content=content, user_id=user, created_at=now), score=0.5)
            for n, (user, content) in enumerate(self.known)
            if user == query.user_id
        ]

    def contents(self, user_id: str) -> list[str]:
        return [record.content for record in self.kept.values() if record.user_id == user_id]
