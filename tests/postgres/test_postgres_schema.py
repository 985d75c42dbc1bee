"""Opening: the tables are made once, what hinders that is named, and row security is on where it may be."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.citus.cluster import Cluster
from openproto_adapters.postgres.migrate import migrate
from openproto_adapters.postgres.row_security import EVERYBODY, acting_for, users_of
from openproto_adapters.postgres.schema import migrations, schema_script
from postgres_tools import At, Database, connected, stored, whole_chain
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, InvalidRequestError, OpenProtoError, ProviderError, ScopeDeniedError


async def opening_fails(memory: AsyncMemory, kind: type[OpenProtoError], says: str = ".") -> None:
    with pytest.raises(kind, match=says):
        async with memory:
            pass


async def test_clients_that_open_an_empty_database_at_once_all_work(empty: Database) -> None:
    async def work(n: int) -> None:
        async with empty.client(embedder="local") as memory:
            await memory.add(f"from {n}", user_id="ada")

    await asyncio.gather(*(work(n) for n in range(6)))
    assert await empty.value("SELECT count(*) FROM openproto.memories") == 6
    assert await empty.value("SELECT count(*) FROM openproto.migrations") == len(migrations())


async def test_a_session_that_knew_the_schema_as_missing_works_once_another_has_made_it(db: Database) -> None:
    # Behind PgBouncer a server's session outlives its clients, and so does its cache of what does not exist.
    try:
        async with connected(db.dsn) as first, connected(db.dsn) as second:
            await migrate(second, f"{db.schema}_warm")
            await first.execute(f"BEGIN; {schema_script(db.schema)}")
            migrating = asyncio.create_task(migrate(second, db.schema))
            await db.becomes("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'", 1, 30)
            await first.execute("COMMIT")
            await migrating
    finally:
        await db.execute(f"DROP SCHEMA IF EXISTS {db.schema}_warm CASCADE")
    assert await db.value(f"SELECT count(*) FROM {db.schema}.migrations") == len(migrations())


async def test_opening_again_applies_no_migration_twice_and_a_newer_version_is_refused(db: Database) -> None:
    applied = f"SELECT version, applied_at FROM {db.schema}.migrations ORDER BY version"
    async with db.client() as memory:
        first = await db.sql(applied)
        await memory.add("stays", user_id="ada")
    async with db.client() as memory:
        assert [record.content async for record in memory.iter("ada")] == ["stays"]
    await db.execute(schema_script(db.schema))
    assert await db.sql(applied) == first
    assert [row["version"] for row in first] == [version for version, _ in migrations()]
    await db.execute(f"INSERT INTO {db.schema}.migrations (version) VALUES ({len(first) + 1})")
    await opening_fails(db.client(), ProviderError, rf"newer openproto.*{len(first) + 1}.*upgrade")


async def test_a_migration_that_fails_leaves_nothing_behind(db: Database) -> None:
    await db.execute(f"CREATE SCHEMA {db.schema}", f"CREATE TABLE {db.schema}.audit (in_the_way int)")
    await opening_fails(db.client(), ProviderError)
    assert await db.value(f"SELECT to_regclass('{db.schema}.memories') IS NULL")
    await db.execute(f"DROP TABLE {db.schema}.audit")
    async with db.client() as memory:
        await memory.add("works", user_id="ada")


@pytest.mark.parametrize("embedder", ["none", HashEmbedder(1024)], ids=["words", "long vectors"])
async def test_a_role_that_may_not_create_works_once_the_owner_did(db: Database, guest: str, embedder: Any) -> None:
    as_guest = {"url": db.server.dsn(user=guest), "embedder": embedder}
    await opening_fails(db.client(**as_guest), ScopeDeniedError, "openproto schema")
    if embedder != "none":
        async with db.client(embedder=embedder):
            pass  # the index of long vectors is another one
    await db.execute(Postgres(db.dsn, schema=db.schema).schema_script())
    await opening_fails(db.client(**as_guest), ScopeDeniedError, "GRANT")
    await db.execute(db.grants(guest))
    async with db.client(**as_guest) as memory:
        old = await memory.add("likes tea", user_id="ada")
        new = await memory.add("likes coffee", user_id="ada", supersedes=[old.id])
        await memory.update(new.id, content="likes strong coffee")
        assert [found.memory.id for found in await memory.search("coffee", "ada")] == [new.id]
        stored((await memory.add_many([{"content": "likes cake", "user_id": "ada"}]))[0])
        await memory.delete(old.id)
        assert {entry.action for entry in await memory.audit("ada")} == {"add", "update", "search", "delete"}
        assert await memory.delete_all("ada") == 2


OLD_CONTROL = "default_version = '0.6.0'\nrelocatable = true\n"


@pytest.mark.parametrize(
    ("control", "says"),
    [("", "lacks pgvector: install"), (OLD_CONTROL, r"older than 0\.7.*ALTER EXTENSION vector UPDATE")],
    ids=["missing", "too old"],
)
async def test_a_server_without_a_fitting_pgvector_is_named_as_such(empty: Database, control: str, says: str) -> None:
    # In the home of the server, where its user may enter.
    with tempfile.TemporaryDirectory(dir=empty.server.home) as folder:
        os.chmod(folder, 0o755)
        extension = Path(folder) / "extension"
        extension.mkdir(mode=0o755)
        if control:
            (extension / "vector.control").write_text(control)
            (extension / "vector--0.6.0.sql").write_text("CREATE DOMAIN vector AS real[];\n")
        # PostgreSQL looks for extensions there only.
        await empty.execute(f"ALTER DATABASE {empty.name} SET extension_control_path = '{folder}'")
        await opening_fails(empty.client(), ProviderError, says)


@pytest.mark.parametrize("path", ["''", '"extra types", public'])
async def test_pgvector_may_live_in_any_schema_and_search_path_does_not_matter(empty: Database, path: str) -> None:
    await empty.execute(f"ALTER DATABASE {empty.name} SET search_path = {path}")
    if path == "''":  # there is no place for the extension to go to
        await opening_fails(empty.client(), ProviderError, "search_path")
    await empty.execute('CREATE SCHEMA "extra types"', 'CREATE EXTENSION vector SCHEMA "extra types"')
    async with empty.client(embedder="local") as memory:
        added = await memory.add("drinks tea in the morning", user_id="ada")
        await memory.add_many([{"content": "drinks water", "user_id": "ada"}])
        await memory.update(added.id, content="drinks tea at noon")
        assert (await memory.search("when does she drink tea?", "ada"))[0].memory.id == added.id


async def test_a_character_that_the_encoding_of_the_database_lacks_is_refused(db: Database, empty: Database) -> None:
    await db.execute(f"DROP DATABASE {empty.name}")
    await db.execute(f"CREATE DATABASE {empty.name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    tea = "tea \N{TEACUP WITHOUT HANDLE}"
    async with empty.client() as memory:
        record = await memory.add("thé", user_id="ada")
        for call in (
            memory.add(tea, user_id="ada"),
            memory.update(record.id, content=tea),
            memory.add("tea", user_id="ada", tags=[tea]),
        ):
            with pytest.raises(InvalidRequestError, match="encoding UTF8") as caught:
                await call
            assert tea not in whole_chain(caught.value)
        (outcome,) = await memory.add_many([{"content": tea, "user_id": "ada"}])
        assert isinstance(outcome, InvalidRequestError)
        assert (await memory.list("ada")).items == [record]


def test_a_schema_name_that_needs_quotes_is_refused_before_connecting() -> None:
    for name in ("Upper", "has space", 'quo"te', "x; DROP TABLE y", "", "1st", "é", "x" * 64):
        with pytest.raises(ValueError, match="schema"):
            AsyncMemory("postgres", url="postgresql://nowhere.invalid/x", schema=name)


async def state_of(**options: Any) -> str:
    provider = Postgres(embedder="none", **options)
    async with AsyncMemory(provider):
        return (await provider.describe())["row security"]


async def test_it_is_on_where_allowed_and_said_to_hold_where_it_does(db: Database, owner: str, guest: str) -> None:
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


ALL = frozenset({"memories", "keys", "audit", "store"})


def test_a_cluster_that_cannot_be_used_is_refused_with_what_to_do() -> None:
    for cluster, said in (
        (Cluster("11.3-1", "o", frozenset(), False), "Citus 11.3-1, .* Citus 12 or newer: install it on every server"),
        (Cluster("15.0-1", "o", ALL - {"keys"}, True), "'o' are half distributed: keys is missing .* --distribute`"),
        (Cluster("15.0-1", "o", ALL, False), r"half distributed: run\(\) is missing"),
    ):
        with pytest.raises(ProviderError, match=said):
            cluster.check()
    local = Cluster("15.0-1", "o", frozenset(), False)  # tables on one server are used like any others
    local.check()
    assert local.settings(10.0) == {}
    assert "--distribute" in str(local)
    assert Cluster("15.0-1", "o", ALL, True).settings(2.5)["citus.node_connection_timeout"] == "2500ms"


def test_only_a_script_that_distributes_has_citus_in_it() -> None:
    assert "create_distributed_table" in schema_script("o", distribute=True)
    assert "FORCE ROW LEVEL" not in schema_script("o", distribute=True).replace("NO FORCE", "")
    assert "citus" not in schema_script("o").lower()


def test_whom_a_statement_acts_for_is_read_back() -> None:
    users = ["ada", 'e"v\\e', "*", "{}", "NULL", "ünï, {x}", " ", "\\", '"', ",", "a\nb", "\u2028"]
    for some in ([], *([user] for user in users), users):
        assert users_of(acting_for(*some)) == some
    assert users_of(EVERYBODY) == []
