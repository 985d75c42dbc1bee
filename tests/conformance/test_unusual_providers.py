"""Correct providers that are unlike most conform as well: a suite that refuses them is wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from openproto_adapters.sqlite import Sqlite, statements
from openproto_conformance.runner import run
from saboteurs import SuiteOf, changed, outcome_of

from openproto import Capabilities, MemoryInput, MemoryPage, MemoryRecord, Provider
from openproto.provider import KeyedInput, Outcomes, SearchResults
from openproto.requests import ListQuery, MemoryUpdate, RecordRef, SearchQuery

TRIED = (
    "histories_of_searches",
    "histories_of_updates",
    "histories_of_pages",
    "results_come_best_first",
    "the_loop_is_never_blocked",
)


class EveryScoreIsEqual(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        hits = await super().search(changed(query, min_score=None))
        return [changed(hit, score=1.0, parts={"backend": 1.0} if query.explain else None) for hit in hits]


class EveryCallTakes30ms(Sqlite):
    async def get(self, ref: RecordRef) -> MemoryRecord:
        await asyncio.sleep(0.03)
        return await super().get(ref)

    async def list(self, query: ListQuery) -> MemoryPage:
        await asyncio.sleep(0.03)
        return await super().list(query)

    async def search(self, query: SearchQuery) -> SearchResults:
        await asyncio.sleep(0.03)
        return await super().search(query)


class IngestsASecondLate(Sqlite):
    """What was written can be searched for a second later."""

    def is_late(self, record: MemoryRecord) -> bool:
        return datetime.now(UTC) - (record.updated_at or record.created_at) < timedelta(seconds=1)

    def told(self, record: MemoryRecord) -> MemoryRecord:
        told: MemoryRecord = changed(record, status="indexing") if self.is_late(record) else record
        return told

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return self.told(await super().add(item, idempotency_key=idempotency_key))

    async def add_many(self, items: Sequence[KeyedInput]) -> Outcomes:
        outcomes = await super().add_many(items)
        return [self.told(outcome) if isinstance(outcome, MemoryRecord) else outcome for outcome in outcomes]

    async def update(self, ref: RecordRef, changes: MemoryUpdate) -> MemoryRecord:
        return self.told(await super().update(ref, changes))

    async def get(self, ref: RecordRef) -> MemoryRecord:
        return self.told(await super().get(ref))

    async def search(self, query: SearchQuery) -> SearchResults:
        return [hit for hit in await super().search(query) if not self.is_late(hit.memory)]

    async def capabilities(self) -> Capabilities:
        real = await super().capabilities()
        support = {**real.x_openproto.support, "async_ingestion": "native"}
        details = changed(real.x_openproto, support=support)
        declared: Capabilities = changed(
            real, features=changed(real.features, async_ingestion=True), x_openproto=details
        )
        return declared


class FewVerbs(Provider):
    """The least that there may be, with the base class's `add_many`; subclasses have `list` or `search` as well."""

    name = "few"
    cancellation = "native"

    def __init__(self, path: Path) -> None:
        self.store = Sqlite(path, embedder="none")

    async def open(self) -> None:
        await self.store.open()

    async def close(self) -> None:
        await self.store.close()

    async def add(self, item: MemoryInput, *, idempotency_key: str) -> MemoryRecord:
        return await self.store.add(item, idempotency_key=idempotency_key)

    async def get(self, ref: RecordRef) -> MemoryRecord:
        return await self.store.get(ref)

    async def delete(self, ref: RecordRef) -> None:
        await self.store.delete(ref)

    async def capabilities(self) -> Capabilities:
        features = (await self.store.capabilities()).features
        without = {"keyword_search": "search" in self.verbs, "vector_search": False, "supports_audit": False}
        declared: Capabilities = changed(await super().capabilities(), features=changed(features, **without))
        return declared


class OnlyLists(FewVerbs):
    async def list(self, query: ListQuery) -> MemoryPage:
        return await self.store.list(query)


class OnlySearches(FewVerbs):
    async def search(self, query: SearchQuery) -> SearchResults:
        return await self.store.search(changed(query, explain=False))


def random_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ids be in no order at all."""
    for module in ("openproto.ids", "openproto.provider", "openproto.stores.indexer"):
        monkeypatch.setattr(f"{module}.new_id", lambda user_id: f"{random.getrandbits(128):032x}", raising=False)


def clock_off_by(seconds: float) -> Callable[[pytest.MonkeyPatch], None]:
    """Return what lets the store's clock, and no other, be ahead or behind."""

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + timedelta(seconds=seconds)

    def shift(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(statements, "now", lambda: (time.time_ns() // 1000) + int(seconds * 1e6))
        stores = [f"openproto_adapters.sqlite.{module}" for module in ("adding", "provider", "restoring")]
        for module in (*stores, "openproto.stores.audit_buffer"):
            monkeypatch.setattr(f"{module}.datetime", Shifted)

    return shift


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize(
    "provider", [EveryScoreIsEqual, EveryCallTakes30ms, pytest.param(IngestsASecondLate, marks=pytest.mark.full)]
)
def test_an_unusual_provider_conforms(provider: type[Sqlite], name: str, tmp_path: Path) -> None:
    assert outcome_of(SuiteOf(provider, tmp_path), name) == "passed"


@pytest.mark.parametrize(
    "only", [["capabilities", "context", "histories_of_contexts", "search"], pytest.param([], marks=pytest.mark.full)]
)
@pytest.mark.parametrize("provider", [OnlyLists, OnlySearches])
def test_a_provider_of_few_verbs_conforms(provider: type[FewVerbs], only: list[str], tmp_path: Path) -> None:
    report = run(lambda: provider(tmp_path / "memory.db"), only=only, quick=True)
    assert report.verdict == ("incomplete" if only else "conforms"), report.to_markdown()
    assert report.tally.keys() >= {"passed", "refused"}


@pytest.mark.parametrize("name", [*TRIED[:3], "histories_of_supersession", "histories_of_contexts"])
@pytest.mark.parametrize(
    "change", [random_ids, clock_off_by(2), clock_off_by(-2)], ids=["random ids", "clock ahead", "clock behind"]
)
def test_ids_and_clocks_of_another_kind_conform(
    change: Callable[[pytest.MonkeyPatch], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    assert outcome_of(SuiteOf(Sqlite, tmp_path), name) == "passed"
