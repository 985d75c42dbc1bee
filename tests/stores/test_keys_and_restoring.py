"""What the histories of the suite leave out of keys, duplicates, handovers, restoring, and the audit log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from openproto import AsyncMemory, ConflictError, InvalidRequestError, MemoryInput, MemoryRecord, NotFoundError
from openproto.provider import Call, current_call, generated_key

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


async def current(memory: AsyncMemory, as_of: datetime | None = None) -> set[str]:
    """Return what is current, by the listing, after checking that search agrees."""
    at = as_of or datetime.now(UTC)
    listed = {record.content async for record in memory.iter("ada", as_of=at)}
    found = {hit.memory.content for hit in await memory.search("note one two three", "ada", as_of=at, limit=100)}
    assert found == listed
    return listed


async def test_puts_at_once_leave_one_record(memory: AsyncMemory) -> None:
    records = await asyncio.gather(*(memory.put(f"note {n}", user_id="ada", key="k") for n in range(200)))
    assert len({record.id for record in records}) == len((await memory.list("ada", limit=500)).items) == 1


async def test_what_was_said_before_is_kept_skipped_or_superseded(memory: AsyncMemory) -> None:
    first = await memory.add("note one", user_id="ada", tags=["a"])
    skipped = await memory.add("Note  ONE.", user_id="ada", on_duplicate="skip")
    assert skipped == first.model_copy(update={"duplicate_of": first.id})
    assert (await memory.get(first.id)).duplicate_of is None
    for other in ({"scope": "s"}, {"user_id": "bob"}, {"content": "note one?"}, {"key": "k"}):
        fields: dict[str, Any] = {"content": "note one", "user_id": "ada", "on_duplicate": "skip", **other}
        assert (await memory.add(**fields)).duplicate_of is None
    named = await memory.get(key="k", user_id="ada")
    items = [
        {"content": text, "user_id": "ada", "on_duplicate": "supersede", "idempotency_key": text}
        for text in ("note two", "note one", "NOTE TWO", "note three", "")
    ]
    outcomes = [outcome for outcome in await memory.add_many(items) if isinstance(outcome, MemoryRecord)]
    assert [record.supersedes for record in outcomes] == [[], [named.id, first.id], [outcomes[0].id], []]
    assert (await memory.add_many(items))[:4] == [await memory.get(record.id) for record in outcomes]
    assert (await memory.add("note three", user_id="ada")).supersedes == []
    await asyncio.gather(
        *(memory.add("note four", user_id="ada", on_duplicate=what) for what in ("skip", "supersede", "skip") * 4)
    )
    current = [record async for record in memory.iter("ada", as_of=datetime.now(UTC))]
    assert [record.content for record in current].count("note four") == 1
    assert sorted(entry.action for entry in await memory.audit("ada", memory_id=first.id)) == ["add", "add", "get"]


async def test_an_add_that_is_tried_again_is_written_once_and_does_not_bring_back_what_was_deleted(
    memory: AsyncMemory,
) -> None:
    await memory.add("another", user_id="ada")
    provider = memory._session.provider
    item, key = MemoryInput(content="said once", user_id="ada"), generated_key("ada")
    current_call.set(Call("add", "a request", is_retry=True))
    for _ in range(2):
        assert (await provider.add(item, idempotency_key=key)).id == key
    await memory.delete(key, user_id="ada")
    with pytest.raises(ConflictError):
        await provider.add(item, idempotency_key=key)
    assert [record.content async for record in memory.iter("ada")] == ["another"]


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


async def test_a_restored_store_is_what_it_was(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada", scope="a/b", tags=["t"], source={"app": "x"}, x_app=[1], key="k")
    gone = await memory.add("note two", user_id="ada", supersedes=[old.id])
    await memory.delete(gone.id)
    two = await memory.add("note two", user_id="ada", idempotency_key="once")
    await memory.add("note three", user_id="ada", supersedes=[two.id], valid_from=FUTURE)
    moments = (PAST, two.created_at, datetime.now(UTC), FUTURE)
    before = [record async for record in memory.iter("ada")]
    answers = [await current(memory, at) for at in moments]
    for order in (before, before[::-1]):
        assert await memory.delete_all("ada") == 3
        with pytest.raises(ConflictError):
            await memory.add("note two", user_id="ada", idempotency_key="once")
        for record in order:
            (outcome,) = await memory.restore([record])
            assert (outcome.id, outcome.outcome) == (record.id, "restored")
        after = [record async for record in memory.iter("ada")]
        assert [r.model_dump(exclude={"version"}) for r in after] == [r.model_dump(exclude={"version"}) for r in before]
        assert [await current(memory, at) for at in moments] == answers
        assert {r.version for r in after}.isdisjoint(r.version for r in before)
        assert (await memory.add("note two", user_id="ada", idempotency_key="once")).id == two.id
    outcomes = await memory.restore([before[0], before[0].model_copy(update={"user_id": "bob"})])
    assert [outcome.outcome for outcome in outcomes] == ["exists", "refused"]
    assert outcomes[1].error
    rival = before[-1].model_copy(update={"id": "01a226be-687d-8a29-8637-abe479a2f03f", "supersedes": []})
    assert [outcome.outcome for outcome in await memory.restore([rival])] == ["refused"]  # its key is in use


async def test_a_record_of_before_its_supersession_is_superseded_when_it_comes_back(memory: AsyncMemory) -> None:
    early = await memory.add("Paris", user_id="ada")
    late = await memory.add("Lisbon", user_id="ada", supersedes=[early.id])
    await memory.delete(early.id)
    assert [each.outcome for each in await memory.restore([early])] == ["restored"]
    assert (await memory.get(early.id)).superseded_by == late.id
    assert [record.content for record in await memory.list("ada", as_of=datetime.now(UTC))] == ["Lisbon"]


async def test_what_an_earlier_item_superseded_is_no_duplicate_of_a_later_one(memory: AsyncMemory) -> None:
    old = await memory.add("Ada drinks tea", user_id="ada")
    newer = {"content": "Ada drinks cocoa", "user_id": "ada", "supersedes": [old.id]}
    again = {"content": "Ada drinks tea", "user_id": "ada", "on_duplicate": "skip"}
    ids = [outcome.id for outcome in await memory.add_many([newer, again]) if isinstance(outcome, MemoryRecord)]
    assert len(ids) == 2
    assert old.id not in ids
    assert len(await memory.list("ada")) == 3
    heir = await memory.add("Ada drinks tea", user_id="ada", supersedes=ids[:1], on_duplicate="supersede")
    assert heir.supersedes == ids


async def test_users_are_those_with_records_page_by_page(memory: AsyncMemory) -> None:
    for user in ("Zoe", "ada", "bob", "bob", "\U0001f642", "chris"):
        await memory.add("note", user_id=user)
    await memory.delete_all("chris")
    first = await memory.users(limit=2)
    second = await memory.users(limit=2, cursor=first.next_cursor)
    assert (first.items, second.items, second.next_cursor) == (["Zoe", "ada"], ["bob", "\U0001f642"], None)


async def test_reads_can_be_left_out(store: Any) -> None:
    async with store.client(audit_reads=False) as memory:
        added = await memory.add("tea", user_id="ada")
        await memory.get(added.id)
        await memory.list("ada")
        await memory.search("tea", "ada")
        assert [entry.action for entry in await memory.audit("ada")] == ["add"]
    assert await store.rows("SELECT action FROM audit") == [("add",)]


async def test_a_context_is_one_entry(memory: AsyncMemory) -> None:
    await memory.add("note one", user_id="ada")
    assert (await memory.context("nothing of it", "ada")).text.startswith("note one")
    assert [entry.action for entry in await memory.audit("ada")] == ["context", "add"]
