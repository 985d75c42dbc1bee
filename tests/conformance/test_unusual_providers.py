"""Correct providers that are unlike most conform as well: a suite that refuses them is wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance.execute import ALL_WORK, SuiteRun
from saboteurs import SuiteOf, changed

from openproto import MemoryPage, MemoryRecord
from openproto.provider import SearchResults
from openproto.requests import ListQuery, RecordRef, SearchQuery

TRIED = (
    "histories_of_searches",
    "histories_of_updates",
    "histories_of_pages",
    "results_come_best_first",
    "the_loop_is_never_blocked",
)


class EveryScoreIsEqual(Sqlite):
    async def search(self, query: SearchQuery) -> SearchResults:
        hits = await super().search(query)
        return [changed(hit, score=1.0) for hit in hits]


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


def random_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ids be in no order at all."""
    for module in ("openproto.ids", "openproto.provider", "openproto.stores.indexer"):
        monkeypatch.setattr(f"{module}.new_id", lambda user_id: f"{random.getrandbits(128):032x}", raising=False)


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.parametrize("provider", [EveryScoreIsEqual, EveryCallTakes30ms])
def test_an_unusual_provider_conforms(provider: type[Sqlite], name: str, tmp_path: Path) -> None:
    (work,) = (work for work in ALL_WORK if work.case.name == name and work.face == "async")
    result = SuiteRun(quick=True).execute(SuiteOf(provider, tmp_path), work)
    assert result.outcome == "passed", result.detail


@pytest.mark.parametrize("name", TRIED[:3])
@pytest.mark.parametrize("change", [random_ids])
def test_ids_in_no_order_conform(
    change: Callable[[pytest.MonkeyPatch], None], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch)
    (work,) = (work for work in ALL_WORK if work.case.name == name and work.face == "async")
    result = SuiteRun(quick=True).execute(SuiteOf(Sqlite, tmp_path), work)
    assert result.outcome == "passed", result.detail
