"""Row-level security: on where the role may turn it on, said where it does not hold, and never in anybody's way."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres import schema as tables
from openproto_adapters.postgres.row_security import acting_for
from openproto_adapters.postgres.schema import migrations, schema_script
from postgres_tools import LONG, MakeClient, Server, execute, sql, value

from openproto import AsyncMemory


async def state_of(**options: Any) -> str:
    provider = Postgres(embedder="none", **options)
    async with AsyncMemory(provider):
        return (await provider.describe())["row security"]


async def test_it_is_on_where_the_role_may_turn_it_on_and_is_said_to_hold_only_where_it_does(
    dsn: str, owner: str, schema: str
) -> None:
    assert "off" in await state_of(url=owner, schema=schema, row_security=False)
    assert "row_security=False" in await state_of(url=dsn, schema=schema, row_security=False)
    assert "holds" in await state_of(url=owner, schema=schema)
    assert "holds" in await state_of(url=owner, schema=schema, row_security=False)  # what is on stays on
    assert "BYPASSRLS" in await state_of(url=dsn, schema=schema)


async def test_a_role_that_may_not_turn_it_on_works_without_and_is_told_who_may(
    server: Server, dsn: str, owner: str, schema: str
) -> None:
    guest = f"g_{schema}"
    async with AsyncMemory("postgres", url=owner, schema=schema, embedder="none", row_security=False):
        pass
    try:
        await execute(
            dsn,
            f"CREATE ROLE {guest} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {guest}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {guest}",
        )
        assert "openproto schema" in await state_of(url=server.dsn(user=guest), schema=schema)
        await execute(owner, schema_script(schema))
        assert "holds" in await state_of(url=server.dsn(user=guest), schema=schema)
    finally:
        await execute(dsn, f"DROP OWNED BY {guest}", f"DROP ROLE {guest}")


async def test_a_statement_that_says_nothing_is_refused_and_an_operator_says_it_by_hand(
    owner: str, schema: str
) -> None:
    async with AsyncMemory("postgres", url=owner, schema=schema, embedder="none") as memory:
        for user in ("ada", 'e"v\\e', "*", "{}", "NULL", "ünï, {x}"):
            await memory.add("note", user_id=user)
            assert [record.user_id async for record in memory.iter(user)] == [user]
        assert len((await memory.users()).items) == 6
    for table in ("memories", "audit"):
        with pytest.raises(asyncpg.RaiseError, match="does not say for which users"):
            await sql(owner, f"SELECT * FROM {schema}.{table}")
    count = f"SELECT count(*) FROM {schema}.memories"
    for setting, seen in ((acting_for("ada"), 1), (acting_for("ada", "*"), 2), ("*", 6), (acting_for(), 0)):
        assert await value(f"{owner}&options=-c%20openproto.users%3D{quoted(setting)}", count) == seen


def quoted(setting: str) -> str:
    return setting.replace('"', "%22").replace("{", "%7B").replace("}", "%7D").replace(",", "%2C").replace("*", "%2A")


async def test_the_tables_of_the_version_before_are_secured_with_what_they_hold(
    make: MakeClient, owner: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = """'{{"x-openproto": {{"conversation": "a talk", "turn": {turn}}}}}'"""
    before = migrations()[:3]
    with monkeypatch.context() as patched:
        patched.setattr(tables, "migrations", lambda: before)
        await execute(
            owner,
            schema_script(schema, row_security=False),
            f"""INSERT INTO {schema}.memories (id, user_id, content, words, tags, supersedes, extensions)
            SELECT gen_random_uuid(), 'ada', 'turn ' || n, '{{}}/1000000000'::sparsevec, '{{}}', '{{}}', extensions
            FROM (VALUES (1, {turn.format(turn=1)}::json), (2, {turn.format(turn='"2"')}), (3, NULL))
                AS new (n, extensions)""",
        )
        old = await asyncpg.connect(owner, timeout=LONG)  # what an older client does in a session that it had before
        reading = await old.prepare(f"SELECT content FROM {schema}.memories WHERE user_id = $1")
        assert len(await reading.fetch("ada")) == 3
    try:
        async with make(url=owner) as memory:
            assert len((await memory.list("ada")).items) == 3
            with pytest.raises(asyncpg.RaiseError):
                await reading.fetch("ada")
    finally:
        await old.close()
    places = f"SELECT content, turn, conversation IS NOT NULL FROM {schema}.memories ORDER BY content"
    async with make(url=owner):
        found = await sql(f"{owner}&options=-c%20openproto.users%3D%2A", places)
    assert [tuple(row) for row in found] == [("turn 1", 1, True), ("turn 2", None, True), ("turn 3", None, False)]
