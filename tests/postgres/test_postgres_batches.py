"""`add_many` is one statement, and writes what single statements would."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from postgres_tools import stored, value

from openproto import AsyncMemory

LATEST = datetime.max.replace(tzinfo=UTC)


@pytest.mark.promise(31)
async def test_a_batch_is_one_statement(memory: AsyncMemory, dsn: str, schema: str) -> None:
    assert await memory.add_many([]) == []
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada"} for n in range(50)])
    assert await value(dsn, f"SELECT count(DISTINCT xmin::text) FROM {schema}.memories") == 1


async def test_the_last_of_a_batch_that_supersedes_a_record_is_its_successor(memory: AsyncMemory) -> None:
    for _ in range(5):
        old = await memory.add("old", user_id="ada")
        items = [{"content": f"new {n}", "user_id": "ada", "supersedes": [old.id]} for n in range(6)]
        outcomes = await memory.add_many(items)
        assert (await memory.get(old.id)).superseded_by == stored(outcomes[-1]).id


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), LATEST])
async def test_the_earliest_and_latest_moments_come_back_unchanged(memory: AsyncMemory, moment: datetime) -> None:
    fields: dict[str, Any] = {"valid_from": moment, "valid_to": None if moment == LATEST else LATEST}
    record = await memory.add("a", user_id="ada", **fields)
    (batched,) = await memory.add_many([{"content": "a", "user_id": "ada", **fields}])
    for id in (record.id, stored(batched).id):
        found = await memory.get(id)
        assert (found.valid_from, found.valid_to) == (moment, fields["valid_to"])
