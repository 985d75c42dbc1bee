"""A database that fails in the middle: a typed error in bounded time, nothing half written, and all well after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from postgres_tools import CLIENTS, MakeClient, Server, execute, running, stuck, whole_chain

from openproto import AsyncMemory, OpenProtoError, ProviderError, ProviderTimeoutError, ProviderUnavailableError

SECRET = "the private thought of ada"


async def terminate_all(dsn: str) -> None:
    await execute(dsn, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {CLIENTS}")


@pytest.mark.parametrize("verb", ["add", "add_many", "search", "update", "delete", "list", "get", "delete_all"])
async def test_a_connection_killed_in_the_middle_is_a_typed_error_and_the_next_call_works(
    make: MakeClient, dsn: str, schema: str, verb: str
) -> None:
    async with make(retries=0, pool_max=1) as memory:
        kept = await memory.add("kept", user_id="ada")
        calls = {
            "add": lambda: memory.add(SECRET, user_id="ada"),
            "add_many": lambda: memory.add_many([{"content": SECRET, "user_id": "ada"}]),
            "search": lambda: memory.search(SECRET, "ada"),
            "update": lambda: memory.update(kept.id, content=SECRET),
            "delete": lambda: memory.delete(kept.id),
            "list": lambda: memory.list("ada"),
            "get": lambda: memory.get(kept.id),
            "delete_all": lambda: memory.delete_all("ada"),
        }
        async with stuck(dsn, schema):
            call = asyncio.ensure_future(calls[verb]())
            await running(dsn, 1)
            await terminate_all(dsn)
            if verb == "add_many":
                (error,) = await call
            else:
                with pytest.raises(OpenProtoError) as caught:
                    await call
                error = caught.value
        assert isinstance(error, ProviderUnavailableError)
        assert SECRET not in whole_chain(error)
        assert [record.content async for record in memory.iter("ada")] == ["kept"]


async def test_a_connection_killed_while_idle_costs_no_call(memory: AsyncMemory, dsn: str) -> None:
    record = await memory.add("kept", user_id="ada")
    for pause in (0.0, 0.1):
        await terminate_all(dsn)
        await asyncio.sleep(pause)
        assert (await memory.get(record.id)).content == "kept"
        await terminate_all(dsn)
        await asyncio.sleep(pause)
        await memory.add("more", user_id="ada")


async def test_the_only_connection_serves_what_comes_next_at_hand_or_waited_for(make: MakeClient) -> None:
    async with make(pool_min=1, pool_max=1, acquire_timeout=5.0) as memory:
        await memory.add("a note", user_id="ada")
        pages = await asyncio.gather(*(memory.list("ada") for _ in range(20)))
        assert [len(page.items) for page in pages] == [1] * 20
        await memory.list("ada")
        provider: Any = memory._session.provider
        async with provider.snapshot(vectors=False) as snapshot:
            assert [user async for user in snapshot.users()] == ["ada"]
        assert len((await memory.list("ada")).items) == 1


async def test_an_exhausted_pool_is_unavailable_within_acquire_timeout(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(retries=0, pool_max=1, acquire_timeout=0.3) as memory:
        record = await memory.add("kept", user_id="ada")
        async with stuck(dsn, schema):
            held = asyncio.create_task(memory.get(record.id))
            await running(dsn, 1)
            with pytest.raises(ProviderUnavailableError, match=r"0\.3 s.*pool_max"):
                await memory.list("ada")
        assert (await held).content == "kept"
        assert len((await memory.list("ada")).items) == 1


@contextlib.asynccontextmanager
async def superuser(dsn: str, name: str, setting: str) -> AsyncIterator[str]:
    """A role with one setting changed."""
    await execute(dsn, f"CREATE ROLE {name} LOGIN SUPERUSER", f"ALTER ROLE {name} SET {setting}")
    try:
        yield name
    finally:
        await execute(dsn, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


async def test_a_statement_timeout_of_the_server_is_a_typed_timeout(
    server: Server, dsn: str, schema: str, make: MakeClient
) -> None:
    async with (
        superuser(dsn, f"hasty_{schema}", "statement_timeout = '200ms'") as role,
        make(url=server.dsn(user=role), retries=0) as memory,
    ):
        record = await memory.add("kept", user_id="ada")
        async with stuck(dsn, schema):
            with pytest.raises(ProviderTimeoutError, match="statement_timeout"):
                await memory.update(record.id, content=SECRET)
        assert (await memory.get(record.id)).content == "kept"


@pytest.mark.parametrize("embedder", ["none", "local"])
async def test_a_database_that_takes_no_writes_says_so_and_still_reads(
    server: Server, dsn: str, schema: str, make: MakeClient, embedder: str
) -> None:
    async with make(embedder=embedder) as writer:
        record = await writer.add("drinks tea", user_id="ada")
    async with (
        superuser(dsn, f"reader_{schema}", "default_transaction_read_only = on") as role,
        make(url=server.dsn(user=role), embedder=embedder, retries=0) as memory,
    ):
        assert (await memory.search("tea", "ada"))[0].memory.id == record.id
        assert (await memory.get(record.id)).content == "drinks tea"
        with pytest.raises(ProviderUnavailableError, match="takes no writes"):
            await memory.add(SECRET, user_id="ada")
        with pytest.raises(ProviderUnavailableError, match="takes no writes"):
            await memory.delete(record.id)


async def test_a_full_disk_is_a_typed_error_and_no_part_of_the_write_stays(
    make: MakeClient, dsn: str, schema: str
) -> None:
    async with make(retries=0, audit_reads=False) as memory:
        old = await memory.add("old", user_id="ada", idempotency_key="k1")
        await execute(dsn, full_audit(schema))
        failures: list[BaseException] = []
        for call in (
            lambda: memory.add(SECRET, user_id="ada", supersedes=[old.id], idempotency_key="k2"),
            lambda: memory.update(old.id, content=SECRET),
            lambda: memory.delete(old.id),
            lambda: memory.delete_all("ada"),
        ):
            with pytest.raises(ProviderUnavailableError, match="full") as caught:
                await call()
            failures.append(caught.value)
        (outcome,) = await memory.add_many([{"content": SECRET, "user_id": "ada", "supersedes": [old.id]}])
        assert isinstance(outcome, ProviderUnavailableError)
        assert SECRET not in "\n".join(map(whole_chain, [*failures, outcome]))
        assert (await memory.list("ada")).items == [old]
        await execute(dsn, f"DROP TRIGGER full_disk ON {schema}.audit")
        stored = await memory.add(SECRET, user_id="ada", supersedes=[old.id], idempotency_key="k2")
        assert (await memory.get(old.id)).superseded_by == stored.id
        assert [entry.action for entry in await memory.audit("ada")] == ["add", "add"]


def full_audit(schema: str) -> str:
    """Let the server find its disk full when the audit entry, the last part of each write, is to be written."""
    return f"""
        CREATE FUNCTION {schema}.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
        END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.audit FOR EACH ROW EXECUTE FUNCTION {schema}.full_disk()
    """


async def test_dropped_tables_are_a_typed_error_that_says_to_open_again(
    make: MakeClient, dsn: str, schema: str
) -> None:
    async with make(retries=0) as memory:
        await memory.add("kept", user_id="ada")
        await execute(dsn, f"DROP SCHEMA {schema} CASCADE")
        with pytest.raises(ProviderError, match="open the client again") as caught:
            await memory.add(SECRET, user_id="ada")
        assert SECRET not in caught.value.message
        assert (await memory.health()).status == "unavailable"
    async with make() as memory:
        assert (await memory.add("new", user_id="ada")).content == "new"


async def test_an_error_of_the_database_never_repeats_content_in_its_message(
    make: MakeClient, dsn: str, schema: str
) -> None:
    async with make(retries=0) as memory:
        record = await memory.add("fine", user_id="ada")
        await execute(dsn, f"ALTER TABLE {schema}.memories ADD CONSTRAINT odd CHECK (content NOT LIKE '%private%')")
        for call in (lambda: memory.add(SECRET, user_id="ada"), lambda: memory.update(record.id, content=SECRET)):
            with pytest.raises(OpenProtoError) as caught:
                await call()
            assert SECRET not in str(caught.value) + repr(caught.value) + str(caught.value.to_envelope())
        (outcome,) = await memory.add_many([{"content": SECRET, "user_id": "ada"}])
        assert SECRET not in str(outcome) + repr(outcome)
