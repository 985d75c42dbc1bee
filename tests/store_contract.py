"""What both stores keep of keys, versions, handovers, and restoring: cases that each store's tests run on it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import pytest

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    MemoryRecord,
    NotFoundError,
    OpenProtoError,
    ProviderError,
)
from openproto.requests import MemoryInput

Case: TypeAlias = Callable[[AsyncMemory], Awaitable[None]]

PAST, FUTURE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)

CASES: list[Case] = []


def case(function: Case) -> Case:
    CASES.append(function)
    return function


async def current(memory: AsyncMemory, as_of: datetime | None = None) -> set[str]:
    """Return what is current, by the listing, after checking that search agrees."""
    at = as_of or datetime.now(UTC)
    listed = {record.content async for record in memory.iter("ada", as_of=at)}
    found = {hit.memory.content for hit in await memory.search("note one two three", "ada", as_of=at, limit=100)}
    assert found == listed
    return listed


@case
async def put_creates_and_then_replaces_every_field(memory: AsyncMemory) -> None:
    first = await memory.put("note one", user_id="ada", key="k", tags=["a"], source={"app": "x"}, x_app={"n": 1})
    second = await memory.put("note two", user_id="ada", key="k", scope="b")
    assert (second.id, second.created_at, second.key) == (first.id, first.created_at, "k")
    assert (second.content, second.scope, second.tags, second.source, second.extensions) == (
        "note two",
        "b",
        [],
        None,
        {},
    )
    assert first.updated_at is None
    assert second.updated_at is not None
    assert await memory.get(key="k", user_id="ada") == second == await memory.get(first.id)
    assert [hit.memory for hit in await memory.search("two", "ada")] == [second]
    assert [entry.action for entry in await memory.audit("ada", memory_id=first.id)][-2:] == ["update", "add"]


@case
async def what_was_said_before_is_kept_skipped_or_superseded(memory: AsyncMemory) -> None:
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


@case
async def a_key_is_one_record_of_one_user_and_free_again_when_that_is_deleted(memory: AsyncMemory) -> None:
    first = await memory.add("note one", user_id="ada", key="k")
    await memory.add("note one", user_id="bob", key="k")
    with pytest.raises(ConflictError, match="key"):
        await memory.add("note two", user_id="ada", key="k")
    outcomes = await memory.add_many(
        [{"content": "note", "user_id": "ada", "key": key} for key in ("k", "l", "l", "m")]
    )
    assert [isinstance(outcome, MemoryRecord) for outcome in outcomes] == [False, True, False, True]
    await memory.delete(first.id)
    with pytest.raises(NotFoundError):
        await memory.get(key="k", user_id="ada")
    assert (await memory.put("note three", user_id="ada", key="k", if_version="absent")).id != first.id


@case
async def a_stale_version_changes_nothing(memory: AsyncMemory) -> None:
    first = await memory.add("note one", user_id="ada", key="k")
    assert first.version is not None
    second = await memory.update(first.id, user_id="ada", tags=["t"], if_version=first.version)
    assert second.version not in (None, first.version)
    for if_version in (first.version, "absent", "no version"):
        with pytest.raises(ConflictError):
            await memory.put("note two", user_id="ada", key="k", if_version=if_version)
        with pytest.raises(ConflictError):
            await memory.update(first.id, content="note two", if_version=if_version)
        with pytest.raises(ConflictError):
            await memory.delete(first.id, user_id="ada", if_version=if_version)
    assert await memory.get(first.id) == second
    with pytest.raises(ConflictError):
        await memory.put("note", user_id="ada", key="other", if_version=first.version)
    with pytest.raises(NotFoundError):
        await memory.delete(first.id, user_id="bob", if_version=second.version)
    await memory.delete(first.id, if_version=second.version)


@case
async def being_superseded_is_a_change_of_the_record(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada")
    await memory.add("note two", user_id="ada", supersedes=[old.id])
    assert (await memory.get(old.id)).version != old.version


@case
async def puts_at_once_leave_one_record(memory: AsyncMemory) -> None:
    puts = [memory.put(f"note {n}", user_id="ada", key="k") for n in range(200)]
    records = await asyncio.gather(*puts)
    assert len({record.id for record in records}) == 1
    assert len((await memory.list("ada", limit=500)).items) == 1


@case
async def a_put_supersedes_what_it_names_and_releases_what_it_names_no_more(memory: AsyncMemory) -> None:
    one, two = [await memory.add(f"note {n}", user_id="ada") for n in ("one", "two")]
    three = await memory.put("note three", user_id="ada", key="k", supersedes=[one.id])
    await memory.put("note three", user_id="ada", key="k", supersedes=[two.id])
    assert (await memory.get(one.id)).superseded_by is None
    assert (await memory.get(two.id)).superseded_by == three.id
    assert await current(memory) == {"note one", "note three"}
    with pytest.raises(InvalidRequestError, match="itself"):
        await memory.put("note three", user_id="ada", key="k", supersedes=[three.id])
    with pytest.raises(NotFoundError):
        await memory.put("note four", user_id="ada", key="k", supersedes=["unknown"])
    assert (await memory.get(three.id)).supersedes == [two.id]


@case
async def a_successor_takes_over_at_one_moment(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada")
    new = await memory.add("note two", user_id="ada", supersedes=[old.id])
    assert new.valid_from is None
    assert await current(memory, new.created_at - INSTANT) == {"note one"}
    assert await current(memory, new.created_at) == {"note two"}
    assert await current(memory, PAST) == {"note one"}


@case
async def a_successor_of_the_future_takes_over_then_and_the_earliest_counts(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada")
    later = await memory.add("note two", user_id="ada", supersedes=[old.id], valid_from=FUTURE)
    assert await current(memory) == {"note one"}
    assert await current(memory, FUTURE - INSTANT) == {"note one"}
    assert await current(memory, FUTURE) == {"note two"}
    last = await memory.add("note three", user_id="ada", supersedes=[old.id], valid_from=PAST)
    assert (await memory.get(old.id)).superseded_by == last.id
    assert await current(memory) == {"note three"}
    assert await current(memory, PAST - INSTANT) == {"note one"}
    await memory.update(last.id, supersedes=None)
    assert (await memory.get(old.id)).superseded_by == later.id
    assert await current(memory) == {"note one", "note three"}


@case
async def an_update_that_names_a_predecessor_hands_over_at_that_moment(memory: AsyncMemory) -> None:
    old, new = [await memory.add(f"note {n}", user_id="ada") for n in ("one", "two")]
    changed = await memory.update(new.id, supersedes=[old.id])
    assert changed.updated_at is not None
    assert changed.valid_from is None
    assert await current(memory, changed.updated_at - INSTANT) == {"note one"}
    assert await current(memory, changed.updated_at) == {"note two"}
    await memory.update(new.id, supersedes=None)
    assert await current(memory, PAST) == {"note one", "note two"}


@case
async def deleting_a_successor_brings_nothing_back(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada")
    first, second = [await memory.add(f"note {n}", user_id="ada", supersedes=[old.id]) for n in ("two", "three")]
    await memory.delete(first.id)
    await memory.update(second.id, supersedes=None)
    assert (await memory.get(old.id)).superseded_by == first.id
    assert await current(memory) == {"note three"}
    assert await current(memory, first.created_at - INSTANT) == {"note one", "note three"}


@case
async def a_restored_store_is_what_it_was(memory: AsyncMemory) -> None:
    old = await memory.add("note one", user_id="ada", scope="a/b", tags=["t"], source={"app": "x"}, x_app=[1], key="k")
    gone = await memory.add("note two", user_id="ada", supersedes=[old.id])
    await memory.delete(gone.id)
    two = await memory.add("note two", user_id="ada")
    await memory.add("note three", user_id="ada", supersedes=[two.id], valid_from=FUTURE)
    moments = (PAST, two.created_at, datetime.now(UTC), FUTURE)
    before = [record async for record in memory.iter("ada")]
    answers = [await current(memory, at) for at in moments]
    for order in (before, before[::-1]):
        assert await memory.delete_all("ada") == 3
        for record in order:
            (outcome,) = await memory.restore([record])
            assert (outcome.id, outcome.outcome) == (record.id, "restored")
        after = [record async for record in memory.iter("ada")]
        assert [r.model_copy(update={"version": None}) for r in after] == [
            r.model_copy(update={"version": None}) for r in before
        ]
        assert [await current(memory, at) for at in moments] == answers
        assert {r.version for r in after}.isdisjoint(r.version for r in before)
    outcomes = await memory.restore([before[0], before[0].model_copy(update={"user_id": "bob"})])
    assert [outcome.outcome for outcome in outcomes] == ["exists", "refused"]
    assert outcomes[1].error
    rival = before[-1].model_copy(update={"id": "01a226be-687d-8a29-8637-abe479a2f03f", "supersedes": []})
    assert [outcome.outcome for outcome in await memory.restore([rival])] == ["refused"]  # its key is in use


@case
async def a_deleted_record_comes_back_by_restore_and_not_by_its_old_add(memory: AsyncMemory) -> None:
    record = await memory.add("note", user_id="ada", idempotency_key="once")
    await memory.delete(record.id)
    with pytest.raises(ConflictError):
        await memory.add("note", user_id="ada", idempotency_key="once")
    assert [outcome.outcome for outcome in await memory.restore([record])] == ["restored"]
    assert (await memory.add("note", user_id="ada", idempotency_key="once")).id == record.id


@case
async def an_update_changes_source_and_extensions(memory: AsyncMemory) -> None:
    record = await memory.add("note", user_id="ada", source={"app": "x"}, x_one=1, x_two={"n": None})
    changed = await memory.update(record.id, source={"ref": "r"}, x_one=None, x_three="3")
    assert changed.source is not None
    assert (changed.source.app, changed.source.ref) == (None, "r")
    assert changed.extensions == {"x-two": {"n": None}, "x-three": "3"}
    assert (await memory.update(record.id, source=None)).source is None
    assert (await memory.update(record.id, x_two=None, x_three=None)).extensions == {}
    assert (await memory.update(record.id, x_two=[2])).extensions == {"x-two": [2]}


@case
async def scopes_are_counted_and_folded(memory: AsyncMemory) -> None:
    for scope in ("a", "a/b", "a/b/c", "a/bc", "ab", None):
        await memory.add("note", user_id="ada", scope=scope)
    await memory.add("note", user_id="bob", scope="z")

    async def counted(**options: Any) -> dict[str, int]:
        return {found.scope: found.records for found in await memory.scopes("ada", **options)}

    assert await counted() == {"a": 1, "a/b": 1, "a/b/c": 1, "a/bc": 1, "ab": 1}
    assert await counted(depth=1) == {"a": 4, "ab": 1}
    assert await counted(prefix="a/b/*") == {"a/b": 1, "a/b/c": 1}
    assert await counted(prefix="a", depth=2) == {"a": 1, "a/b": 2, "a/bc": 1}


@case
async def users_are_those_with_records(memory: AsyncMemory) -> None:
    for user in ("Zoe", "ada", "bob", "bob", "\U0001f642", "chris"):
        await memory.add("note", user_id=user)
    await memory.delete_all("chris")
    pages, cursor = [], None
    while not pages or cursor is not None:
        page = await memory.users(limit=2, cursor=cursor)
        pages.append(page.items)
        cursor = page.next_cursor
    assert pages == [["Zoe", "ada"], ["bob", "\U0001f642"]]


@case
async def a_filter_of_tags_wants_all_of_them(memory: AsyncMemory) -> None:
    for tags in (["a"], ["b"], ["a", "b"], ["b", "a", "c"]):
        await memory.add("note", user_id="ada", tags=tags)
    assert [r.tags async for r in memory.iter("ada", tag=["b", "a"])] == [["b", "a", "c"], ["a", "b"]]
    assert len(await memory.search("note", "ada", tag=("a", "b"))) == 2
    assert len((await memory.context("nothing", "ada", tag=["a", "b"])).citations) == 1  # duplicates are removed
    assert await memory.delete_all("ada", tag=["a", "b"]) == 2
    assert await memory.delete_all("ada", tag=[]) == 2


@case
async def a_context_is_one_entry_in_the_audit_log(memory: AsyncMemory) -> None:
    await memory.add("note one", user_id="ada")
    assert (await memory.context("nothing of it", "ada")).text.startswith("note one")
    actions = [entry.action for entry in await memory.audit("ada")]
    assert actions == ["context", "add"]


async def probe_isolation(memory: AsyncMemory) -> int:
    """Try every verb as Eve on Ada's records; return how many calls ended in an error, after checking what came out."""
    ada = await memory.add("note of ada", user_id="ada", key="k", scope="s", tags=["t"], idempotency_key="once")
    other = await memory.add("note one", user_id="ada", supersedes=[])
    await memory.add("note of eve", user_id="eve", scope="s", tags=["t"])
    before = [record async for record in memory.iter("ada")]
    refusals = 0
    calls: list[Callable[[], Awaitable[Any]]] = [
        lambda: memory.get(ada.id, user_id="eve"),
        lambda: memory.get(key="k", user_id="eve"),
        lambda: memory.update(ada.id, user_id="eve", content="changed"),
        lambda: memory.update(ada.id, user_id="eve", supersedes=[other.id]),
        lambda: memory.delete(ada.id, user_id="eve"),
        lambda: memory.add("note", user_id="eve", supersedes=[ada.id]),
        lambda: memory.add_many([MemoryInput(content="note", user_id="eve", supersedes=[ada.id])]),
        lambda: memory.put("note", user_id="eve", key="k", supersedes=[other.id]),
        lambda: memory.add("note of ada", user_id="eve", key="x", idempotency_key="once"),
        lambda: memory.put("note", user_id="eve", key="k"),
        lambda: memory.list("eve"),
        lambda: memory.list("eve", scope="s", tag="t", as_of=FUTURE),
        lambda: memory.search("note of ada", "eve"),
        lambda: memory.context("note of ada", "eve"),
        lambda: memory.scopes("eve"),
        lambda: memory.audit("eve"),
        lambda: memory.restore([before[0].model_copy(update={"user_id": "eve", "key": None})]),
        lambda: memory.delete_all("eve"),
    ]
    for call in calls:
        try:
            answer = repr(await call())
        except OpenProtoError as error:
            refusals += isinstance(error, ProviderError)
            continue
        refusals += "withheld" in answer
        # Eve's own words may come out, never Ada's record, key, or entries.
        assert "refused" in answer or not any(f"id='{id}'" in answer for id in (ada.id, other.id)), answer
        assert "user_id='ada'" not in answer
    if refusals == 0:
        assert [record async for record in memory.iter("ada")] == before
    return refusals
