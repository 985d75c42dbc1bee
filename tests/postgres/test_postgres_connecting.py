"""A database that cannot be had: its own typed error each time, in bounded time, and without the password."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from postgres_tools import CLIENTS, LONG, MakeClient, Server, execute, tasks, until, whole_chain

from openproto import AsyncMemory, OpenProtoError, ProviderError, ProviderUnavailableError, UnauthorizedError

PASSWORD = "correct-horse/battery@staple"
WRONG = "Tr0ub4dor&3:#wrong"


async def error_of(**options: Any) -> OpenProtoError:
    """What opening says; wherever it happens, opening and the first verb say the same."""
    with pytest.raises(OpenProtoError) as caught:
        async with AsyncMemory("postgres", embedder="none", **options):
            pass
    return caught.value


@pytest.fixture
async def locked(server: Server, dsn: str, schema: str) -> AsyncIterator[str]:
    """A role that must give its password."""
    role = f"locked_{schema}"
    hba = server.place.data / "pg_hba.conf"
    open_to_all = hba.read_text()
    hba.write_text(f"local all {role} scram-sha-256\n{open_to_all}")
    await execute(dsn, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'", "SELECT pg_reload_conf()")

    async def asks() -> bool:
        return isinstance(await error_of(url=server.dsn(user=role, password="")), UnauthorizedError)

    await until(asks, "the new pg_hba.conf")
    yield role
    hba.write_text(open_to_all)
    await execute(dsn, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}", "SELECT pg_reload_conf()")


async def test_the_right_password_opens_even_with_characters_that_urls_quote(
    server: Server, make: MakeClient, locked: str
) -> None:
    async with make(url=server.dsn(user=locked, password=PASSWORD)) as memory:
        assert (await memory.add("in", user_id="ada")).content == "in"


@pytest.mark.parametrize("password", [WRONG, None], ids=["wrong", "none"])
async def test_a_refused_password_is_unauthorized_and_never_repeated(
    server: Server, make: MakeClient, locked: str, password: str | None
) -> None:
    url = server.dsn(user=locked, password=password)
    memory = make(url=url)
    with pytest.raises(UnauthorizedError, match="password") as caught:
        await memory.add("private thought", user_id="ada")
    await memory.aclose()
    shown = whole_chain(caught.value) + repr(memory) + str(caught.value.to_envelope())
    assert "private thought" not in shown
    assert password is None or WRONG not in shown
    assert caught.value.code == "unauthorized"


async def test_a_role_that_does_not_exist_is_unauthorized(server: Server) -> None:
    assert isinstance(await error_of(url=server.dsn(user="nobody_of_that_name")), UnauthorizedError)


async def test_a_role_that_may_not_log_in_is_unauthorized(server: Server, dsn: str, schema: str) -> None:
    await execute(dsn, f"CREATE ROLE r_{schema} NOLOGIN")
    try:
        assert isinstance(await error_of(url=server.dsn(user=f"r_{schema}")), UnauthorizedError)
    finally:
        await execute(dsn, f"DROP ROLE r_{schema}")


async def test_an_unknown_database_is_named_as_the_reason(server: Server) -> None:
    error = await error_of(url=server.dsn("no_such_database"))
    assert type(error) is ProviderError
    assert "CREATE DATABASE" in error.message


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ada:{}@localhost/db",
        "ada:{}@localhost/db",
        "postgresql://ada:{}@localhost:port/db",
        "postgresql://ada:{}@[::1/db",
        "postgresql://ada:{}@localhost/db?sslmode=perhaps",
        "postgresql://ada:{}@localhost:1:2/db",
        "host=localhost password={}",
    ],
)
@pytest.mark.parametrize("secret", ["hunter2", "hunter2/and#more", "hunter2:5?x=[y"])
async def test_a_malformed_url_is_a_typed_error_that_keeps_the_password(url: str, secret: str) -> None:
    error = await error_of(url=url.format(secret), connect_timeout=2, retries=0)
    assert "hunter2" not in whole_chain(error)
    assert "url=" in error.message


@pytest.mark.promise(110)
async def test_nobody_listening_is_unavailable_at_once(tmp_path: Path) -> None:
    for url in (f"postgresql://postgres@/x?host={tmp_path}", "postgresql://postgres:hunter2@127.0.0.1:1/x"):
        began = time.monotonic()
        error = await error_of(url=url, retries=0)
        assert isinstance(error, ProviderUnavailableError)
        assert time.monotonic() - began < 5
        assert "hunter2" not in whole_chain(error)


async def test_a_host_that_does_not_exist_is_unavailable() -> None:
    error = await error_of(url="postgresql://ada:hunter2@no-such-host.invalid/x", retries=0)
    assert isinstance(error, ProviderUnavailableError)
    assert "hunter2" not in whole_chain(error)


async def test_a_server_that_never_answers_is_bounded_by_connect_timeout(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_unix_server(silent, tmp_path / ".s.PGSQL.5432")
    async with listening:
        began = time.monotonic()
        error = await error_of(url=f"postgresql://postgres@/x?host={tmp_path}", connect_timeout=0.3, retries=0)
        assert 0.2 < time.monotonic() - began < 5
    assert isinstance(error, ProviderUnavailableError)
    assert "0.3 s" in error.message


async def test_something_that_is_no_postgresql_is_a_typed_error(tmp_path: Path) -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_unix_server(web, tmp_path / ".s.PGSQL.5432")
    async with listening:
        error = await error_of(url=f"postgresql://postgres@/x?host={tmp_path}", connect_timeout=5, retries=0)
    assert isinstance(error, ProviderError)


async def test_a_server_with_no_connection_left_is_unavailable(
    server: Server, dsn: str, make: MakeClient, schema: str
) -> None:
    role = f"few_{schema}"
    await execute(dsn, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    try:
        error = await error_of(url=server.dsn(user=role), schema=schema, retries=0)
    finally:
        await execute(dsn, f"DROP ROLE {role}")
    assert isinstance(error, ProviderUnavailableError)
    assert "max_connections" in error.message


@pytest.fixture(scope="module")
def another() -> Iterator[Server]:
    running = Server()
    try:
        yield running
    finally:
        running.remove()


@pytest.fixture
def spare(another: Server) -> Server:
    """A running server that the tests may stop."""
    another.start()
    return another


async def test_a_client_closed_while_its_server_is_down_leaves_no_task(spare: Server) -> None:
    before = tasks()
    memory = AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0, pool_min=2, close_timeout=2)
    await memory.list("ada")
    await asyncio.to_thread(spare.stop)
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await memory.aclose()
    assert time.monotonic() - began < 3
    await asyncio.to_thread(spare.start)

    async def only_before() -> bool:
        return tasks() <= before

    await until(only_before, "the end of every task of the client", 0.5)


async def test_a_client_works_again_once_its_server_was_stopped_and_started(spare: Server) -> None:
    async with AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0) as memory:
        record = await memory.add("before", user_id="ada")
        await asyncio.to_thread(spare.stop)
        for _ in range(2):
            began = time.monotonic()
            with pytest.raises(ProviderUnavailableError):
                await memory.get(record.id)
            with pytest.raises(ProviderUnavailableError):
                await memory.delete(record.id)
            assert time.monotonic() - began < 5
        health = await memory.health()
        assert health.status == "unavailable"
        assert health.detail
        await asyncio.to_thread(spare.start)
        assert (await memory.get(record.id)).content == "before"
        await memory.delete(record.id)
        assert (await memory.health()).status == "ok"


async def test_calls_in_flight_when_the_server_is_killed_fail_and_the_next_ones_work(spare: Server) -> None:
    async with AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0, pool_max=3) as memory:
        record = await memory.add("survives", user_id="ada")
        lock = await hold_table(spare.dsn())
        calls = [asyncio.create_task(memory.update(record.id, scope=f"s{n}")) for n in range(3)]
        await asyncio.sleep(0.2)
        postmaster = int((spare.place.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGKILL)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ProviderUnavailableError] * 3
        lock.terminate()
        await asyncio.to_thread(spare.start)

        async def answers() -> bool:
            return (await memory.health()).status == "ok"

        await until(answers, "the server's recovery")
        assert (await memory.get(record.id)).scope is None


async def hold_table(dsn: str) -> asyncpg.Connection:
    """A connection that keeps everybody out of the memories until it is closed."""
    connection = await asyncpg.connect(dsn, timeout=LONG)
    await connection.execute("BEGIN; LOCK TABLE openproto.memories")
    return connection


async def test_a_first_verb_that_fails_to_open_can_be_tried_again(spare: Server) -> None:
    memory = AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0)
    await asyncio.to_thread(spare.stop)
    with pytest.raises(ProviderUnavailableError):
        await memory.add("too early", user_id="ada")
    await asyncio.to_thread(spare.start)
    try:
        assert (await memory.add("now", user_id="ada")).content == "now"
    finally:
        await memory.aclose()


async def test_reads_are_retried_over_a_restart_that_cut_their_connection(spare: Server) -> None:
    async with AsyncMemory("postgres", url=spare.dsn(), embedder="none", pool_max=1) as memory:
        record = await memory.add("steady", user_id="ada")
        await execute(spare.dsn(), f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {CLIENTS}")
        assert (await memory.get(record.id)).content == "steady"
        assert (await memory.add("also", user_id="ada")).content == "also"
