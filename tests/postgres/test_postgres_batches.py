"""`add_many`: one statement, outcomes in order, and a refused item leaves the others alone."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from postgres_tools import MakeClient, stored, value

from openproto import (
    AsyncMemory,
)

MISSING = "01930000-0000-8000-8000-000000000000"


def item(content: str, **fields: Any) -> dict[str, Any]:
    return {"content": content, "user_id": "ada", **fields}


async def test_an_empty_batch_is_no_outcome_and_no_work(memory: AsyncMemory, dsn: str) -> None:
    assert await memory.add_many([]) == []


async def test_the_last_of_a_batch_that_supersedes_a_record_is_its_successor(memory: AsyncMemory) -> None:
    for _ in range(5):
        old = await memory.add("old", user_id="ada")
        outcomes = await memory.add_many([item(f"new {n}", supersedes=[old.id]) for n in range(6)])
        assert (await memory.get(old.id)).superseded_by == stored(outcomes[-1]).id


async def test_a_large_batch_keeps_its_order_and_every_field(make: MakeClient, dsn: str) -> None:
    rng = random.Random(1)
    async with make(embedder="local") as memory:
        items = [
            item(
                f"fact {n} " + "x" * rng.randrange(50) + '"\\\n\u2028\U0001f9e0é',
                scope=f"s/{n % 7}" if n % 3 else None,
                tags=[f"t{n % 5}", 'a "tag", {with} \\ marks'] if n % 2 else None,
                confidence=0.92 if n % 4 else None,
                source={"app": "notes", "type": "imported", "ref": f'r"{n}'} if n % 5 else None,
                valid_from=datetime(2020, 1, 1, 0, 0, 0, n, tzinfo=UTC) if n % 6 else None,
                valid_to=datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC) if n % 6 else None,
                **({"x-mem0": {"n": n, "deep": [1, 2.5, None, {"k": "v"}], "big": 10**30}} if n % 7 else {}),
            )
            for n in range(2_500)
        ]
        outcomes = await memory.add_many(items)
        assert [stored(outcome).content for outcome in outcomes] == [wanted["content"] for wanted in items]
        kept = [record async for record in memory.iter("ada", page_size=500)]
        assert kept == outcomes[::-1]
        single = await memory.add(items[1]["content"], **{k: v for k, v in items[1].items() if k != "content"})
        same = single.model_dump(exclude={"id", "created_at", "version"})
        assert kept[-2].model_dump(exclude={"id", "created_at", "version"}) == same


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
async def test_the_earliest_and_latest_moments_come_back_unchanged(memory: AsyncMemory, moment: datetime) -> None:
    later: dict[str, Any] = {"valid_to": datetime.max.replace(tzinfo=UTC)} if moment.year < 9999 else {}
    record = await memory.add("a", user_id="ada", valid_from=moment, **later)
    (batched,) = await memory.add_many([item("a", valid_from=moment, **later)])
    assert record.valid_from == moment
    for id in (record.id, stored(batched).id):
        assert (await memory.get(id)).valid_from == moment


@pytest.mark.promise(31)
async def test_a_batch_is_one_statement(memory: AsyncMemory, dsn: str, schema: str) -> None:
    await memory.add_many([item(f"fact {n}") for n in range(50)])
    transactions = await value(dsn, f"SELECT count(DISTINCT xmin::text) FROM {schema}.memories")
    assert transactions == 1
