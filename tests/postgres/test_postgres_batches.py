"""`add_many` is one statement, and many writers at once neither deadlock nor lose a change."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from postgres_tools import LONG, MakeClient, stored, value

from openproto import AsyncMemory, ConflictError

LATEST = datetime.max.replace(tzinfo=UTC)


@pytest.mark.promise(31)
async def test_a_batch_is_one_statement(memory: AsyncMemory, dsn: str, schema: str) -> None:
    assert await memory.add_many([]) == []
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada"} for n in range(50)])
    assert await value(dsn, f"SELECT count(DISTINCT xmin::text) FROM {schema}.memories") == 1


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), LATEST])
async def test_the_earliest_and_latest_moments_come_back_unchanged(memory: AsyncMemory, moment: datetime) -> None:
    fields: dict[str, Any] = {"valid_from": moment, "valid_to": None if moment == LATEST else LATEST}
    record = await memory.add("a", user_id="ada", **fields)
    (batched,) = await memory.add_many([{"content": "a", "user_id": "ada", **fields}])
    for id in (record.id, stored(batched).id):
        found = await memory.get(id)
        assert (found.valid_from, found.valid_to) == (moment, fields["valid_to"])


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


async def test_writers_that_supersede_the_same_records_in_opposite_order_do_not_deadlock(make: MakeClient) -> None:
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
        assert stored(outcomes[0]).supersedes == ids


async def test_the_audit_entry_is_part_of_the_transaction_of_the_write(
    memory: AsyncMemory, dsn: str, schema: str
) -> None:
    record = await memory.add("a", user_id="ada")
    (entry,) = await memory.audit("ada")
    assert (entry.memory_id, entry.timestamp) == (record.id, record.created_at)
    together = f"SELECT m.xmin = a.xmin FROM {schema}.memories m JOIN {schema}.audit a ON a.memory_id = m.id::text"
    assert await value(dsn, together) is True


async def test_supersessions_at_once_are_all_kept(memory: AsyncMemory) -> None:
    old = [await memory.add(f"old {n}", user_id="ada") for n in range(8)]
    new = await memory.add("new", user_id="ada")
    await asyncio.gather(*(memory.update(new.id, supersedes=[record.id]) for record in old))
    assert sorted((await memory.get(new.id)).supersedes) == sorted(record.id for record in old)
    assert {(await memory.get(record.id)).superseded_by for record in old} == {new.id}
    assert await memory.search("old", "ada") == []
