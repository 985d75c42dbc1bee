"""What the histories of the suite leave out of keys, duplicates, handovers, restoring, and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from openproto import AsyncMemory, InvalidRequestError, NotFoundError

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


async def current(memory: AsyncMemory, as_of: datetime | None = None) -> set[str]:
    """Return what is current, by the listing, after checking that search agrees."""
    at = as_of or datetime.now(UTC)
    listed = {record.content async for record in memory.iter("ada", as_of=at)}
    found = {hit.memory.content for hit in await memory.search("note one two three", "ada", as_of=at, limit=100)}
    assert found == listed
    return listed


async def test_a_put_supersedes_what_it_names_and_releases_the_rest(memory: AsyncMemory) -> None:
    one, two = [await memory.add(f"note {n}", user_id="ada") for n in ("one", "two")]
    three = await memory.put("note three", user_id="ada", key="k", supersedes=[one.id])
    assert (await memory.get(one.id)).version != one.version
    await memory.put("note three", user_id="ada", key="k", supersedes=[two.id])
    assert (await memory.get(one.id)).superseded_by is None
    assert (await memory.get(two.id)).superseded_by == three.id
    assert await current(memory) == {"note one", "note three"}
    with pytest.raises(InvalidRequestError, match="itself"):
        await memory.put("note three", user_id="ada", key="k", supersedes=[three.id])
    with pytest.raises(NotFoundError):
        await memory.put("note four", user_id="ada", key="k", supersedes=["unknown"])
    assert (await memory.get(three.id)).supersedes == [two.id]


async def test_a_record_of_before_its_supersession_is_superseded_when_it_comes_back(memory: AsyncMemory) -> None:
    early = await memory.add("Paris", user_id="ada")
    late = await memory.add("Lisbon", user_id="ada", supersedes=[early.id])
    await memory.delete(early.id)
    assert [each.outcome for each in await memory.restore([early])] == ["restored"]
    assert (await memory.get(early.id)).superseded_by == late.id
    assert [record.content for record in await memory.list("ada", as_of=datetime.now(UTC))] == ["Lisbon"]


async def test_reads_can_be_left_out(store: Any) -> None:
    async with store.client(audit_reads=False) as memory:
        added = await memory.add("tea", user_id="ada")
        await memory.get(added.id)
        await memory.list("ada")
        await memory.search("tea", "ada")
        assert [entry.action for entry in await memory.audit("ada")] == ["add"]
    assert await store.rows("SELECT action FROM audit") == [("add",)]
