"""A database that fails in the middle: a typed error in bounded time, nothing half written, and all well after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgres_tools import CLIENTS, MakeClient, Server, execute, running, stuck, whole_chain

from openproto import (
    AsyncMemory,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

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


async def test_a_write_that_is_never_repeated_says_so_in_a_typed_error_when_its_connection_had_died(
    make: MakeClient, dsn: str
) -> None:
    async with make(retries=0, pool_max=1) as memory:
        record = await memory.add("kept", user_id="ada")
        failed = 0
        for n in range(20):
            await terminate_all(dsn)
            try:
                await memory.update(record.id, scope=f"s{n}")
            except ProviderUnavailableError:
                failed += 1
            assert (await retried(memory, record.id)).content == "kept"
        assert failed <= 20


async def retried(memory: AsyncMemory, id: str):
    for _ in range(2):
        with contextlib.suppress(ProviderUnavailableError):
            return await memory.get(id)
    return await memory.get(id)


async def test_an_exhausted_pool_is_unavailable_within_acquire_timeout(make: MakeClient, dsn: str, schema: str) -> None:
    async with make(retries=0, pool_max=1, acquire_timeout=0.3) as memory:
        record = await memory.add("kept", user_id="ada")
        async with stuck(dsn, schema):
            held = asyncio.create_task(memory.get(record.id))
            await running(dsn, 1)
            began = time.monotonic()
            with pytest.raises(ProviderUnavailableError, match=r"0\.3 s.*pool_max"):
                await memory.list("ada")
            assert 0.2 < time.monotonic() - began < 3
        assert (await held).content == "kept"
        assert len((await memory.list("ada")).items) == 1


async def test_the_clients_timeout_bounds_a_stuck_statement_and_ends_it_in_the_server(
    make: MakeClient, dsn: str, schema: str
) -> None:
    async with make(timeout=0.3, pool_max=1) as memory:
        record = await memory.add("kept", user_id="ada")
        async with stuck(dsn, schema):
            with pytest.raises(ProviderTimeoutError):
                await memory.get(record.id)
            await running(dsn, 0)
        assert (await memory.get(record.id)).content == "kept"


async def test_a_statement_timeout_of_the_server_is_a_typed_timeout(
    server: Server, dsn: str, schema: str, make: MakeClient
) -> None:
    role = f"hasty_{schema}"
    await execute(dsn, f"CREATE ROLE {role} LOGIN SUPERUSER", f"ALTER ROLE {role} SET statement_timeout = '200ms'")
    try:
        async with make(url=server.dsn(user=role), retries=0) as memory:
            record = await memory.add("kept", user_id="ada")
            async with stuck(dsn, schema):
                with pytest.raises(ProviderTimeoutError, match="statement_timeout"):
                    await memory.update(record.id, content=SECRET)
            assert (await memory.get(record.id)).content == "kept"
    finally:
        await execute(dsn, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize("embedder", ["none", "local"])
async def test_a_database_that_takes_no_writes_says_so_and_still_reads(
    server: Server, dsn: str, schema: str, make: MakeClient, embedder: str
) -> None:
    role = f"reader_{schema}"
    async with make(embedder=embedder) as writer:
        record = await writer.add("drinks tea", user_id="ada")
    await execute(
        dsn, f"CREATE ROLE {role} LOGIN SUPERUSER", f"ALTER ROLE {role} SET default_transaction_read_only = on"
    )
    try:
        async with make(url=server.dsn(user=role), embedder=embedder, retries=0) as memory:
            assert (await memory.search("tea", "ada"))[0].memory.id == record.id
            assert (await memory.get(record.id)).content == "drinks tea"
            with pytest.raises(ProviderUnavailableError, match="takes no writes"):
                await memory.add(SECRET, user_id="ada")
            with pytest.raises(ProviderUnavailableError, match="takes no writes"):
                await memory.delete(record.id)
    finally:
        await execute(dsn, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


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


@pytest.fixture
def small_disk(server: Server) -> Iterator[Path]:
    """A folder on a disk of 4 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk; the full disk by trigger is tested everywhere")
    folder = Path(tempfile.mkdtemp(prefix="op-disk-", dir="/tmp"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "openproto-test", folder], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip("mounting is not allowed here; the full disk by trigger is tested everywhere")
    try:
        inside = folder / "space"
        inside.mkdir(mode=0o700)
        os.chown(inside, server.place.uid, server.place.gid)
        yield inside
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


async def test_a_disk_that_really_is_full_takes_whole_memories_or_none(
    small_disk: Path, server: Server, dsn: str, schema: str, make: MakeClient
) -> None:
    space = f"space_{schema}"
    await execute(dsn, f"CREATE TABLESPACE {space} LOCATION '{small_disk}'")
    try:
        async with make(retries=0, audit_reads=False) as memory:
            await execute(
                dsn,
                f"ALTER TABLE {schema}.memories SET TABLESPACE {space}",
                f"ALTER TABLE {schema}.audit SET TABLESPACE {space}",
            )
            stored: list[str] = []

            async def add_for_ever() -> None:
                while True:
                    stored.append((await memory.add(os.urandom(10_000).hex(), user_id="ada")).id)

            with pytest.raises(ProviderUnavailableError, match="disk of the PostgreSQL server is full"):
                await add_for_ever()
            assert stored
            assert [record.id async for record in memory.iter("ada")] == stored[::-1]
            audited = await memory.audit("ada", limit=1000)
            assert [entry.memory_id for entry in audited] == stored[::-1]
            await execute(
                dsn,
                f"ALTER TABLE {schema}.memories SET TABLESPACE pg_default",
                f"ALTER TABLE {schema}.audit SET TABLESPACE pg_default",
            )
            await memory.add("room again", user_id="ada")
    finally:
        await execute(dsn, f"DROP SCHEMA {schema} CASCADE", f"DROP TABLESPACE {space}")


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
        for call in (
            lambda: memory.add(SECRET, user_id="ada"),
            lambda: memory.update(record.id, content=SECRET),
        ):
            with pytest.raises(OpenProtoError) as caught:
                await call()
            assert SECRET not in str(caught.value) + repr(caught.value) + str(caught.value.to_envelope())
        (outcome,) = await memory.add_many([{"content": SECRET, "user_id": "ada"}])
        assert SECRET not in str(outcome) + repr(outcome)
