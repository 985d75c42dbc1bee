"""A vendor that is a dictionary: texts, metadata, and a search by shared words, each call a moment away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import datetime

from openproto.emulation import EmulatedProvider, Ranked, Stored, Traits
from openproto.ids import new_id
from openproto.models import Cancellation
from openproto.requests import MemoryInput, SearchQuery
from openproto.stores.words import terms


@dataclass
class Row:
    """What the vendor keeps: whose it is, a text, and a string of metadata."""

    user_id: str
    text: str
    metadata: str


class DictVendor(EmulatedProvider[dict[str, Row]]):
    name = "dictionary"
    cancellation: Cancellation = "native"
    traits = Traits(keyword_search=True, vector_search=False, lists_users=True)

    def __init__(self, rows: dict[str, Row], *, most_ranked: int = 1000, ordered: bool = False) -> None:
        super().__init__()
        self.rows = rows
        self.traits = replace(self.traits, most_ranked=most_ranked, scans_newest_first=ordered)
        self.creates = 0

    async def connect(self) -> dict[str, Row]:
        return self.rows

    def store_name(self) -> str:
        return str(id(self.rows))

    async def create(self, item: MemoryInput, key: str) -> Stored:
        await asyncio.sleep(0)
        stored = Stored.new(item, key, id=new_id(item.user_id))
        self._put(stored)
        self.creates += 1
        await asyncio.sleep(0)
        return stored

    async def find(self, id: str, user_id: str | None) -> Stored | None:
        await asyncio.sleep(0)
        row = self.rows.get(id)
        return Stored.from_text(row.metadata, row.text) if row else None

    async def find_key(self, user_id: str, key: str) -> Stored | None:
        async for stored in self.scan(user_id):
            if stored.idempotency_key == key:
                return stored
        return None

    async def replace(self, old: Stored, new: Stored) -> Stored:
        await asyncio.sleep(0)
        self._put(new)
        await asyncio.sleep(0)
        return replace(new)

    async def remove(self, stored: Stored) -> bool:
        await asyncio.sleep(0)
        return self.rows.pop(stored.record.id, None) is not None

    async def scan(self, user_id: str, until: datetime | None = None) -> AsyncGenerator[Stored, None]:
        await asyncio.sleep(0)
        everything = [Stored.from_text(row.metadata, row.text) for row in self.rows.values() if row.user_id == user_id]
        if self.traits.scans_newest_first:
            everything.sort(key=lambda stored: stored.record.created_at, reverse=True)
        for stored in everything:
            if until is None or stored.record.created_at <= until:
                yield stored

    async def owners(self) -> set[str]:
        return {row.user_id for row in self.rows.values()}

    async def rank(self, query: SearchQuery, count: int) -> Ranked:
        wanted = set(terms(query.query))
        held = [(stored, wanted & {*terms(stored.record.content)}) async for stored in self.scan(query.user_id)]
        hits = [(stored, len(words) / len(wanted)) for stored, words in held if words]
        hits.sort(key=lambda hit: hit[1], reverse=True)
        return Ranked(hits[:count], complete=len(hits) <= count)

    def _put(self, stored: Stored) -> None:
        self.rows[stored.record.id] = Row(stored.record.user_id, stored.record.content, stored.to_text())
