"""Row-level security: on where the role may turn it on, said where it does not hold, and never in anybody's way."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.schema import schema_script
from postgres_tools import At, Database

from openproto import AsyncMemory


async def state_of(**options: Any) -> str:
    provider = Postgres(embedder="none", **options)
    async with AsyncMemory(provider):
        return (await provider.describe())["row security"]


async def test_it_is_on_where_that_is_allowed_and_said_to_hold_where_it_does(
    db: Database, owner: str, guest: str
) -> None:
    assert "off" in await state_of(url=owner, schema=db.schema, row_security=False)
    assert "row_security=False" in await state_of(url=db.dsn, schema=db.schema, row_security=False)
    await db.execute(db.grants(guest))
    assert "openproto schema" in await state_of(url=db.server.dsn(user=guest), schema=db.schema)
    await At(owner).execute(schema_script(db.schema))
    assert "holds" in await state_of(url=db.server.dsn(user=guest), schema=db.schema)
    assert "holds" in await state_of(url=owner, schema=db.schema)
    assert "holds" in await state_of(url=owner, schema=db.schema, row_security=False)  # what is on stays on
    assert "BYPASSRLS" in await state_of(url=db.dsn, schema=db.schema)


async def test_a_statement_for_nobody_is_refused_and_an_operator_names_users_by_hand(db: Database, owner: str) -> None:
    async with AsyncMemory("postgres", url=owner, schema=db.schema, embedder="none") as memory:
        for user in ("ada", 'e"v\\e', "*", "{}", "NULL", "ünï, {x}"):
            await memory.add("note", user_id=user)
            assert [record.user_id async for record in memory.iter(user)] == [user]
        assert len((await memory.users()).items) == 6
    for table in ("memories", "audit"):
        with pytest.raises(asyncpg.RaiseError, match="does not say for which users"):
            await At(owner).sql(f"SELECT * FROM {db.schema}.{table}")
    count = f"SELECT count(*) FROM {db.schema}.memories"
    for setting, seen in ((acting_for("ada"), 1), (acting_for("ada", "*"), 2), ("*", 6), (acting_for(), 0)):
        assert await At(f"{owner}&options=-c%20openproto.users%3D{quote(setting)}").value(count) == seen
