"""Many writers at once: each key stores once, no change is lost, and a batch is its items, each on its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from postgres_tools import LONG, MakeClient, sql, value

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    MemoryRecord,
    NotFoundError,
)

MISSING = "01930000-0000-8000-8000-000000000000"


def records(outcomes: Any) -> list[MemoryRecord]:
    assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes), outcomes
    return list(outcomes)


async def test_twenty_adds_at_once_under_one_key_store_one_record(memory: AsyncMemory) -> None:
    found = await asyncio.gather(*(memory.add("once", user_id="ada", idempotency_key="k") for _ in range(20)))
    assert len({record.id for record in found}) == 1
    assert (await memory.list("ada")).items == [found[0]]
    assert [entry.action for entry in await memory.audit("ada")].count("add") == 1


async def test_of_conflicting_adds_at_once_under_one_key_one_wins(memory: AsyncMemory) -> None:
    outcomes = await asyncio.gather(
        *(memory.add(f"version {n}", user_id="ada", idempotency_key="k") for n in range(20)), return_exceptions=True
    )
    stored = [outcome for outcome in outcomes if isinstance(outcome, MemoryRecord)]
    assert len(stored) == 1
    assert sum(isinstance(outcome, ConflictError) for outcome in outcomes) == 19
    assert (await memory.list("ada")).items == stored


async def test_one_key_serves_each_user_apart(memory: AsyncMemory) -> None:
    mine = await memory.add("mine", user_id="ada", idempotency_key="k")
    yours = await memory.add("yours", user_id="bob", idempotency_key="k")
    assert mine.id != yours.id


ADDING = """
import asyncio, sys
from openproto import AsyncMemory, ConflictError

async def main():
    async with AsyncMemory("postgres", url=sys.argv[1], schema=sys.argv[2], embedder="none") as memory:
        print("ready", flush=True)
        sys.stdin.readline()
        for n in range(100):
            record = await memory.add(f"fact {n}", user_id="ada", idempotency_key=f"k{n}")
            print(record.id)

asyncio.run(main())
"""


async def test_processes_that_add_the_same_keys_at_once_store_each_once(
    memory: AsyncMemory, dsn: str, schema: str, start_python
) -> None:
    processes = [start_python(ADDING, dsn, schema) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.communicate()[1]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    printed = [process.communicate() for process in processes]
    assert [errors for _, errors in printed] == [""] * 3
    assert printed[0][0] == printed[1][0] == printed[2][0]
    assert len([record async for record in memory.iter("ada")]) == 100


async def test_a_deleted_memorys_key_stays_used(memory: AsyncMemory) -> None:
    record = await memory.add("gone", user_id="ada", idempotency_key="k")
    await memory.delete(record.id)
    with pytest.raises(ConflictError, match="deleted"):
        await memory.add("gone", user_id="ada", idempotency_key="k")
    (outcome,) = await memory.add_many([{"content": "gone", "user_id": "ada", "idempotency_key": "k"}])
    assert isinstance(outcome, ConflictError)
    assert (await memory.list("ada")).items == []
    assert (await memory.add("gone", user_id="bob", idempotency_key="k")).content == "gone"


async def test_an_add_repeated_while_its_memory_is_being_deleted_does_not_bring_it_back(
    memory: AsyncMemory, dsn: str, schema: str
) -> None:
    record = await memory.add("gone", user_id="ada", idempotency_key="k")
    deleting = await asyncpg.connect(dsn, timeout=LONG)
    try:
        # What `delete` does, held open just before its commit.
        await deleting.execute(f"BEGIN; DELETE FROM {schema}.memories WHERE id = '{record.id}'")
        again = asyncio.create_task(memory.add("gone", user_id="ada", idempotency_key="k"))
        await asyncio.sleep(0.2)
        await deleting.execute("COMMIT")
    finally:
        await deleting.close()
    # Before the commit the add still finds the first record; after it, only the key.
    (outcome,) = await asyncio.gather(again, return_exceptions=True)
    assert outcome == record or isinstance(outcome, ConflictError)
    assert (await memory.list("ada")).items == []


async def test_updates_of_different_fields_at_once_are_all_kept(memory: AsyncMemory) -> None:
    record = await memory.add("first", user_id="ada", valid_from=datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(10):
        until = datetime(2027, 1, 1 + n, tzinfo=UTC)
        await asyncio.gather(
            memory.update(record.id, content=f"content {n}"),
            memory.update(record.id, scope=f"s{n}", user_id="ada"),
            memory.update(record.id, tags=[f"t{n}"]),
            memory.update(record.id, confidence=n / 10),
            memory.update(record.id, valid_to=until),
        )
        now = await memory.get(record.id)
        assert (now.content, now.scope, now.tags, now.confidence, now.valid_to) == (
            f"content {n}",
            f"s{n}",
            [f"t{n}"],
            n / 10,
            until,
        )


async def test_supersessions_at_once_are_all_kept(memory: AsyncMemory) -> None:
    old = [await memory.add(f"old {n}", user_id="ada") for n in range(8)]
    new = await memory.add("new", user_id="ada")
    await asyncio.gather(*(memory.update(new.id, supersedes=[record.id]) for record in old))
    assert sorted((await memory.get(new.id)).supersedes) == sorted(record.id for record in old)
    assert {(await memory.get(record.id)).superseded_by for record in old} == {new.id}
    assert await memory.search("old", "ada") == []


async def test_writers_that_supersede_the_same_records_in_opposite_order_do_not_deadlock(
    make: MakeClient,
) -> None:
    async with make(pool_max=8, retries=0) as memory:
        old = [await memory.add(f"old {n}", user_id="ada") for n in range(20)]
        ids = [record.id for record in old]
        for _ in range(12):
            await asyncio.gather(
                *(memory.add("new", user_id="ada", supersedes=ids if n % 2 else ids[::-1]) for n in range(8)),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids]),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids[::-1]]),
            )
        outcomes = await memory.add_many([{"content": "b", "user_id": "ada", "supersedes": ids}])
        assert records(outcomes)[0].supersedes == ids


async def test_update_clears_and_appends_what_a_record_supersedes(memory: AsyncMemory) -> None:
    one, two, three = [await memory.add(name, user_id="ada") for name in ("one", "two", "three")]
    first = await memory.add("first", user_id="ada", supersedes=[one.id])
    second = await memory.add("second", user_id="ada", supersedes=[one.id, two.id])
    appended = await memory.update(second.id, supersedes=[three.id, two.id, three.id])
    assert appended.supersedes == [one.id, two.id, three.id]
    assert (await memory.get(one.id)).superseded_by == second.id
    cleared = await memory.update(second.id, supersedes=None)
    assert cleared.supersedes == []
    # `first` supersedes `one` still; nobody supersedes the others.
    assert (await memory.get(one.id)).superseded_by == first.id
    assert (await memory.get(two.id)).superseded_by is None
    assert (await memory.get(three.id)).superseded_by is None
    assert {found.memory.content for found in await memory.search("one two three", "ada")} == {"two", "three"}
    await memory.update(first.id, supersedes=None)
    assert (await memory.get(one.id)).superseded_by is None


@pytest.mark.parametrize("seconds", [-1, 0])
async def test_a_valid_to_before_the_stored_valid_from_changes_nothing(memory: AsyncMemory, seconds: int) -> None:
    begins = datetime(2026, 5, 1, tzinfo=UTC)
    record = await memory.add("kept", user_id="ada", valid_from=begins)
    with pytest.raises(InvalidRequestError, match="valid_to"):
        await memory.update(record.id, content="lost", valid_to=begins + timedelta(seconds=seconds))
    assert await memory.get(record.id) == record
    assert "update" not in {entry.action for entry in await memory.audit("ada")}


async def test_an_update_superseding_a_foreign_or_unknown_record_changes_nothing(memory: AsyncMemory) -> None:
    mine = await memory.add("mine", user_id="ada")
    yours = await memory.add("yours", user_id="bob")
    for ids in ([yours.id], [MISSING], ["not an id"], [yours.id, MISSING]):
        with pytest.raises(NotFoundError):
            await memory.update(mine.id, content="lost", supersedes=ids)
    assert await memory.get(mine.id) == mine
    assert await memory.get(yours.id) == yours


async def test_the_audit_entry_is_part_of_the_writes_own_transaction(
    memory: AsyncMemory, dsn: str, schema: str
) -> None:
    record = await memory.add("a", user_id="ada", scope="s/t", source={"app": "notes"})
    await memory.update(record.id, content="b")
    await memory.delete(record.id)
    entries = await sql(
        dsn,
        f"SELECT action, app, scope, memory_id, timestamp FROM {schema}.audit ORDER BY number",
    )
    assert [(entry["action"], entry["app"], entry["scope"]) for entry in entries] == [
        ("add", "notes", "s/t"),
        ("update", None, "s/t"),
        ("delete", None, "s/t"),
    ]
    assert {entry["memory_id"] for entry in entries} == {record.id}
    assert entries[0]["timestamp"] == record.created_at
    other = await memory.add("c", user_id="ada")
    together = await value(
        dsn,
        f"SELECT m.xmin = a.xmin FROM {schema}.memories m JOIN {schema}.audit a ON a.memory_id = m.id::text "
        f"WHERE m.id = '{other.id}'",
    )
    assert together is True
