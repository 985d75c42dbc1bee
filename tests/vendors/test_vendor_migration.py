"""From a store to a vendor: equal to the last field and at every moment, or refused by name before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from openproto import AsyncMemory
from openproto.portable.bringing import Result
from openproto.portable.journal import open_journal
from openproto.portable.matching import Matching
from openproto.portable.migrate import Migration
from openproto.portable.surveying import Survey, survey


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=tmp_path / "store.db", embedder="none") as client:
        yield client


ANEW = {"id", "created_at", "updated_at", "key", "supersedes"}


async def moved(source: AsyncMemory, target: AsyncMemory, name: str, report: Path) -> tuple[Survey, Result]:
    plan = await survey(source, target, ["ada"], Mock())
    file, journal = open_journal(report, {})
    with file:
        return plan, await Migration(source, target, plan, journal, Matching(name)).run(Mock())


async def shown(memory: AsyncMemory) -> list[Any]:
    """Return all of a user's records, and which of them were current at several moments."""
    records = [record async for record in memory.iter("ada")]
    changed = {record.updated_at for record in records} - {None}
    moments = sorted(changed | {record.created_at for record in records} | {datetime.now(UTC)})  # type: ignore[type-var]
    current = [[record.id async for record in memory.iter("ada", as_of=moment)] for moment in moments]
    return [[record.model_dump(exclude={"version", "status"}) for record in records], current]


async def test_a_vendor_gets_the_last_field(store: AsyncMemory, memory: AsyncMemory, tmp_path: Path) -> None:
    old = await store.add("lives in Paris", user_id="ada", scope="home", tags=["a"], key="city", x_app={"n": [1, None]})
    tea = await store.add("likes tea", user_id="ada", confidence=0.5, source={"app": "notes"})
    new = await store.add("lives in Oslo", user_id="ada", supersedes=[old.id])
    await store.update(old.id, tags=["b"])
    await store.update(new.id, supersedes=[tea.id])  # from this moment on
    gone = await store.add("likes nothing", user_id="ada", supersedes=[tea.id])
    await store.delete(gone.id)
    before = await shown(store)
    there = tmp_path / "there"
    plan, result = await moved(store, memory, "sqlite", there)
    if not plan.restores:
        assert set(plan.cannot_keep) <= ANEW | {"moment of supersession"}
        return
    assert (dict(plan.cannot_keep), result.brought, result.equal, dict(result.faults)) == ({}, 3, 3, {})
    assert (result.ids, await shown(memory)) == ({}, before)
    assert await memory.get(old.id) == await memory.get(user_id="ada", key="city")
    await memory.delete(tea.id, user_id="ada")
    tea = await store.get(tea.id)
    assert [each.outcome for each in await memory.restore([tea, tea])] == ["restored", "exists"]
    assert [each.outcome for each in await memory.restore([await store.get(old.id)])] == ["exists"]
    (foreign,) = await memory.restore([tea.model_copy(update={"user_id": "bob"})])
    assert (foreign.outcome, foreign.error) == ("refused", "id: a record of another user has it; add() makes a new one")
