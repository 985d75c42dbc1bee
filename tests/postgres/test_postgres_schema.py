"""Opening: the tables are made once, and every reason why they cannot be is named."""

from __future__ import annotations

import asyncio
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres import schema as tables
from openproto_adapters.postgres.migrate import migrate
from openproto_adapters.postgres.schema import migrations, schema_script
from postgres_tools import LONG, MakeClient, Server, execute, sql, stored, until, value
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, ProviderError, ScopeDeniedError

OPENING = """
import asyncio, sys
from openproto import AsyncMemory

async def main():
    sys.stdin.readline()
    async with AsyncMemory("postgres", url=sys.argv[1], embedder=sys.argv[2]) as memory:
        await memory.add(f"from {sys.argv[3]}", user_id="ada")
        print(len((await memory.list("ada")).items), flush=True)
        sys.stdin.readline()

print("ready", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("embedder", ["none", "local"])
async def test_processes_that_open_an_empty_database_at_once_all_work(
    server: Server, database: str, start_python, embedder: str
) -> None:
    processes = [start_python(OPENING, server.dsn(database), embedder, n) for n in range(5)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout.readline().strip().isdigit(), process.communicate()[1]
    for process in processes:
        assert process.communicate("done\n")[1] == ""
        assert process.returncode == 0
    assert await value(server.dsn(database), "SELECT count(*) FROM openproto.memories") == len(processes)
    assert await value(server.dsn(database), "SELECT count(*) FROM openproto.migrations") == len(migrations())


async def test_a_client_that_waited_for_anothers_migration_works(make: MakeClient, dsn: str, schema: str) -> None:
    first = await asyncpg.connect(dsn, timeout=LONG)
    try:
        await first.execute(f"BEGIN; {schema_script(schema)}")
        memory = make()
        adding = asyncio.create_task(memory.add("after you", user_id="ada"))
        await until(lambda: waits_for_lock(dsn), "the second to wait for the first")
        await first.execute("COMMIT")
    finally:
        await first.close()
    try:
        assert (await adding).content == "after you"
    finally:
        await memory.aclose()
    assert await value(dsn, f"SELECT count(*) FROM {schema}.migrations") == len(migrations())


async def test_a_session_that_knew_the_schema_as_missing_works_once_another_has_made_it(dsn: str, schema: str) -> None:
    # Behind PgBouncer a server's session outlives its clients, and so does its cache of what does not exist.
    first, second = [await asyncpg.connect(dsn, timeout=LONG) for _ in range(2)]
    try:
        await migrate(second, f"{schema}_warm")
        await first.execute(f"BEGIN; {schema_script(schema)}")
        migrating = asyncio.create_task(migrate(second, schema))
        await until(lambda: waits_for_lock(dsn), "the second to wait for the first")
        await first.execute("COMMIT")
        await migrating
    finally:
        await first.close()
        await second.close()
        await execute(dsn, f"DROP SCHEMA IF EXISTS {schema}_warm CASCADE")
    assert await value(dsn, f"SELECT count(*) FROM {schema}.migrations") == len(migrations())


async def waits_for_lock(dsn: str) -> bool:
    return await value(dsn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'") == 1


@pytest.mark.promise(51)
async def test_opening_again_applies_no_migration_twice(make: MakeClient, dsn: str, schema: str) -> None:
    applied = f"SELECT version, applied_at FROM {schema}.migrations ORDER BY version"
    async with make() as memory:
        first = await sql(dsn, applied)
        await memory.add("stays", user_id="ada")
    async with make() as memory:
        assert [record.content async for record in memory.iter("ada")] == ["stays"]
    await execute(dsn, schema_script(schema))
    assert await sql(dsn, applied) == first
    assert [row["version"] for row in first] == [version for version, _ in migrations()]


OLD = """
INSERT INTO {schema}.memories (id, user_id, content, created_at, words, tags, supersedes, superseded_by, superseded_at)
SELECT id::uuid, 'ada', content, at::timestamptz, '{{}}/1000'::sparsevec, '{{}}', old::uuid[], by::uuid,
    since::timestamptz
FROM (VALUES
    ('00000000-0000-8000-8000-000000000001', 'note one', '2026-01-01Z', '{{}}',
        '00000000-0000-8000-8000-000000000002', '2026-01-02Z'),
    ('00000000-0000-8000-8000-000000000002', 'note two', '2026-01-02Z', '{{00000000-0000-8000-8000-000000000001}}',
        NULL, NULL),
    ('00000000-0000-8000-8000-000000000003', 'note three', '2026-01-01Z', '{{}}',
        '00000000-0000-8000-8000-000000000009', '2026-01-03Z')
) AS old (id, content, at, old, by, since)
"""


async def test_tables_of_the_first_version_are_upgraded_and_keep_what_they_held(
    dsn: str, schema: str, make: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = migrations()[:1]
    with monkeypatch.context() as patched:
        patched.setattr(tables, "migrations", lambda: first)
        await execute(dsn, schema_script(schema, row_security=False), OLD.format(schema=schema))
    async with make() as memory:
        one, two, three = [
            await memory.get(f"00000000-0000-8000-8000-00000000000{number}", user_id="ada") for number in (1, 2, 3)
        ]
        assert (two.valid_from, one.superseded_by, len({one.version, two.version, three.version})) == (None, two.id, 3)

        async def current(day: int) -> set[str]:
            return {r.content async for r in memory.iter("ada", as_of=datetime(2026, 1, day, tzinfo=UTC))}

        assert await current(1) == {"note one", "note three"}
        assert await current(2) == {"note two", "note three"}
        assert await current(3) == {"note two"}
        await memory.update(two.id, supersedes=None)
        assert await current(1) == {"note one", "note two", "note three"}


async def test_tables_of_a_newer_openproto_are_refused(make: MakeClient, dsn: str, schema: str) -> None:
    async with make():
        pass
    await execute(dsn, f"INSERT INTO {schema}.migrations (version) VALUES (9999)")
    with pytest.raises(ProviderError, match=r"newer openproto.*9999.*upgrade"):
        async with make():
            pass


async def test_a_migration_that_fails_leaves_nothing_behind(make: MakeClient, dsn: str, schema: str) -> None:
    await execute(dsn, f"CREATE SCHEMA {schema}", f"CREATE TABLE {schema}.audit (in_the_way int)")
    with pytest.raises(ProviderError):
        async with make():
            pass
    assert await value(dsn, f"SELECT to_regclass('{schema}.memories') IS NULL")
    await execute(dsn, f"DROP TABLE {schema}.audit")
    async with make() as memory:
        await memory.add("works", user_id="ada")


@pytest.fixture
async def role(dsn: str, schema: str):
    """A role that may connect and nothing else."""
    name = f"r_{schema}"
    await execute(dsn, f"CREATE ROLE {name} LOGIN")
    yield name
    await execute(dsn, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


@pytest.mark.parametrize("embedder", ["none", HashEmbedder(1024)], ids=["words", "long vectors"])
async def test_a_role_without_the_right_to_create_works_once_the_owner_ran_the_script(
    server: Server, make: MakeClient, dsn: str, schema: str, role: str, embedder: Any
) -> None:
    if embedder != "none":
        async with make(embedder=embedder):
            pass  # the index of long vectors is another one
    await execute(
        dsn,
        Postgres(dsn, schema=schema).schema_script(),
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}",
    )
    async with make(url=server.dsn(user=role), embedder=embedder) as memory:
        old = await memory.add("likes tea", user_id="ada")
        new = await memory.add("likes coffee", user_id="ada", supersedes=[old.id])
        await memory.update(new.id, content="likes strong coffee")
        assert [found.memory.id for found in await memory.search("coffee", "ada")] == [new.id]
        stored((await memory.add_many([{"content": "likes cake", "user_id": "ada"}]))[0])
        assert len((await memory.list("ada")).items) == 3
        await memory.delete(old.id)
        assert {entry.action for entry in await memory.audit("ada")} == {"add", "update", "search", "list", "delete"}
        assert await memory.delete_all("ada") == 2


async def test_a_role_without_rights_is_referred_to_the_script_or_to_grant(
    server: Server, make: MakeClient, schema: str, role: str
) -> None:
    with pytest.raises(ScopeDeniedError, match="openproto schema"):
        async with make(url=server.dsn(user=role)):
            pass
    async with make() as memory:
        await memory.add("secret tea", user_id="ada")
    with pytest.raises(ScopeDeniedError, match="GRANT"):
        async with make(url=server.dsn(user=role)):
            pass


OLD_CONTROL = "default_version = '0.6.0'\nrelocatable = true\n"


@pytest.mark.parametrize(
    ("control", "says"),
    [("", "lacks pgvector: install"), (OLD_CONTROL, r"older than 0\.7.*ALTER EXTENSION vector UPDATE")],
    ids=["missing", "too old"],
)
async def test_a_server_without_a_fitting_pgvector_is_named_as_such(
    server: Server, database: str, control: str, says: str
) -> None:
    # In the home of the server, where its user may enter.
    with tempfile.TemporaryDirectory(dir=server.home) as folder:
        if control:
            offer_pgvector(Path(folder), control)
        # PostgreSQL looks for extensions there only.
        await execute(server.dsn(), f"ALTER DATABASE {database} SET extension_control_path = '{folder}'")
        with pytest.raises(ProviderError, match=says):
            async with AsyncMemory("postgres", url=server.dsn(database), embedder="none"):
                pass


def offer_pgvector(folder: Path, control: str) -> None:
    folder.chmod(0o755)
    extension = folder / "extension"
    extension.mkdir(mode=0o755)
    (extension / "vector.control").write_text(control)
    (extension / "vector--0.6.0.sql").write_text("CREATE DOMAIN vector AS real[];\n")


@pytest.mark.parametrize("path", ["", "pg_catalog", '"extra types", public'])
async def test_pgvector_may_live_in_any_schema_and_search_path_does_not_matter(
    server: Server, database: str, path: str
) -> None:
    dsn = server.dsn(database)
    await execute(
        dsn,
        'CREATE SCHEMA "extra types"',
        'CREATE EXTENSION vector SCHEMA "extra types"',
        f"ALTER DATABASE {database} SET search_path = {path or chr(39) * 2}",
    )
    async with AsyncMemory("postgres", url=dsn, embedder="local") as memory:
        added = await memory.add("drinks tea in the morning", user_id="ada")
        await memory.add_many([{"content": "drinks water", "user_id": "ada"}])
        await memory.update(added.id, content="drinks tea at noon")
        assert (await memory.search("when does she drink tea?", "ada"))[0].memory.id == added.id


@pytest.mark.parametrize("name", ["Upper", "has space", 'quo"te', "x; DROP TABLE y", "", "1st", "é", "x" * 64])
def test_a_schema_name_that_needs_quotes_is_refused_before_connecting(name: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        AsyncMemory("postgres", url="postgresql://nowhere.invalid/x", schema=name)


async def test_two_schemas_of_one_database_share_nothing(make: MakeClient, dsn: str, schema: str) -> None:
    other = f"{schema}_b"
    try:
        async with make() as one, make(schema=other) as two:
            record = await one.add("mine", user_id="ada")
            assert (await two.list("ada")).items == []
            assert await two.delete_all("ada") == 0
            assert (await one.get(record.id)).content == "mine"
    finally:
        await execute(dsn, f"DROP SCHEMA IF EXISTS {other} CASCADE")
