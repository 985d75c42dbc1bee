"""Many writers at once: each key stores once, no change is lost, and a batch is its items, each on its own."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from postgres_tools import LONG, MakeClient, sql, value

from openproto import (
    AsyncMemory,
    ConflictError,
    MemoryRecord,
)

MISSING = "01930000-0000-8000-8000-000000000000"


def records(outcomes: Any) -> list[MemoryRecord]:
    assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes), outcomes
    return list(outcomes)


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
