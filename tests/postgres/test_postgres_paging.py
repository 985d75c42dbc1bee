"""`list` by keyset: no record twice, none lost, whatever else is written meanwhile."""

from __future__ import annotations

from datetime import timedelta

import pytest
from postgres_tools import execute

from openproto import AsyncMemory, MemoryRecord


async def pages(memory: AsyncMemory, limit: int, **filters: object) -> list[MemoryRecord]:
    found: list[MemoryRecord] = []
    cursor: str | None = None
    while True:
        page = await memory.list("ada", limit=limit, cursor=cursor, **filters)  # type: ignore[arg-type]
        assert page.items or cursor is None, "a cursor led to an empty page"
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_records_of_one_moment_are_paged_without_loss(
    memory: AsyncMemory, dsn: str, schema: str, limit: int
) -> None:
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada", "scope": f"s{n % 2}"} for n in range(30)])
    await memory.add("another user's", user_id="bob")
    # Three moments for thirty records; a transaction's rows may well share one.
    await execute(
        dsn,
        f"UPDATE {schema}.memories SET created_at = '2026-01-01T00:00:00.000001Z'::timestamptz "
        "+ (get_byte(uuid_send(id), 15) % 3) * interval '1 microsecond'",
    )
    whole = (await memory.list("ada", limit=500)).items
    assert whole == sorted(whole, key=lambda record: (record.created_at, record.id), reverse=True)
    assert len(whole) == 30
    assert await pages(memory, limit) == whole
    half = await pages(memory, limit, scope="s1")
    assert half == [record for record in whole if record.scope == "s1"]
    moment = whole[15].created_at
    assert await pages(memory, limit, since=moment) == [record for record in whole if record.created_at >= moment]
    assert await pages(memory, limit, until=moment) == [record for record in whole if record.created_at <= moment]
    instant = await pages(memory, limit, since=moment, until=moment)
    assert instant == [record for record in whole if record.created_at == moment]
    before = moment - timedelta(microseconds=1)
    assert await pages(memory, limit, until=before) == [record for record in whole if record.created_at <= before]


async def test_a_cursor_whose_record_was_deleted_still_leads_on(memory: AsyncMemory) -> None:
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada"} for n in range(10)])
    whole = (await memory.list("ada")).items
    page = await memory.list("ada", limit=4)
    await memory.delete(page.items[-1].id)
    rest = await memory.list("ada", limit=10, cursor=page.next_cursor)
    assert rest.items == whole[4:]
