"""What the histories of the suite leave out of keys, duplicates, handovers, restoring, and users."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from openproto import AsyncMemory, ConflictError, InvalidRequestError, MemoryInput, NotFoundError
from openproto.provider import Call, current_call, generated_key


async def test_puts_and_duplicates_at_once_leave_one_record_of_each(memory: AsyncMemory) -> None:
    records = await asyncio.gather(*(memory.put(f"note {n}", user_id="ada", key="k") for n in range(200)))
    assert len({record.id for record in records}) == 1
    first = await memory.add("note one", user_id="ada")
    skipped = await memory.add("Note  ONE.", user_id="ada", on_duplicate="skip")
    assert skipped == first.model_copy(update={"duplicate_of": first.id})
    assert sorted(entry.action for entry in await memory.audit("ada", memory_id=first.id)) == ["add", "add"]
    words = ("skip", "supersede", "skip") * 4
    await asyncio.gather(*(memory.add("note four", user_id="ada", on_duplicate=what) for what in words))
    current = [record.content async for record in memory.iter("ada", as_of=datetime.now(UTC))]
    assert (len(current), current.count("note four")) == (3, 1)


async def test_an_add_that_is_tried_again_is_written_once_and_not_after_its_deletion(memory: AsyncMemory) -> None:
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
    current = await memory.list("ada", as_of=datetime.now(UTC))
    assert {record.id for record in current} == {one.id, three.id}
    with pytest.raises(InvalidRequestError, match="itself"):
        await memory.put("note three", user_id="ada", key="k", supersedes=[three.id])
    with pytest.raises(NotFoundError):
        await memory.put("note four", user_id="ada", key="k", supersedes=["unknown"])
    assert (await memory.get(three.id)).supersedes == [two.id]


async def test_what_is_restored_has_its_idempotency_key_back_and_takes_nobodys_key_or_id(memory: AsyncMemory) -> None:
    once = await memory.add("once", user_id="ada", idempotency_key="once")
    named = await memory.add("named", user_id="ada", key="k")
    await memory.delete_all("ada")
    with pytest.raises(ConflictError):
        await memory.add("once", user_id="ada", idempotency_key="once")
    rival = named.model_copy(update={"id": "01a226be-687d-8a29-8637-abe479a2f03f"})
    foreign = once.model_copy(update={"user_id": "bob"})
    for records, expected in (
        ([named, once], ["restored", "restored"]),
        ([once, rival, foreign], ["exists", "refused", "refused"]),
    ):
        assert [outcome.outcome for outcome in await memory.restore(records)] == expected
    assert (await memory.add("once", user_id="ada", idempotency_key="once")).id == once.id
    assert (await memory.get(once.id)).version != once.version


async def test_users_are_those_with_records_page_by_page(memory: AsyncMemory) -> None:
    for user in ("Zoe", "ada", "bob", "bob", "\U0001f642", "chris"):
        await memory.add("note", user_id=user)
    await memory.delete_all("chris")
    first = await memory.users(limit=2)
    second = await memory.users(limit=2, cursor=first.next_cursor)
    assert (first.items, second.items, second.next_cursor) == (["Zoe", "ada"], ["bob", "\U0001f642"], None)
