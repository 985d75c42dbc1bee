"""What goes wrong at the database and in the engine, as typed errors that come soon and tell no secrets."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memori_tools import RunPython, Sql
from openproto_adapters.memori import Memori, store
from openproto_adapters.memori.errors import typed_error
from sqlalchemy import exc

from openproto import (
    AsyncMemory,
    ConflictError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ScopeDeniedError,
    UnauthorizedError,
)


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("the secret text")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (sqlite_error(sqlite3.SQLITE_BUSY), ProviderUnavailableError),
        (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), ProviderUnavailableError),
        (sqlite_error(sqlite3.SQLITE_FULL), ProviderUnavailableError),
        (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), ProviderUnavailableError),
        (sqlite_error(sqlite3.SQLITE_READONLY), ScopeDeniedError),
        (sqlite_error(sqlite3.SQLITE_CANTOPEN), ProviderError),
        (sqlite_error(sqlite3.SQLITE_CORRUPT), ProviderError),
        (sqlite_error(sqlite3.SQLITE_ERROR), ProviderError),
        (psycopg.errors.InvalidPassword("the secret text"), UnauthorizedError),
        (psycopg.errors.InvalidCatalogName("the secret text"), ProviderError),
        (psycopg.errors.InsufficientPrivilege("the secret text"), ScopeDeniedError),
        (psycopg.errors.DiskFull("the secret text"), ProviderUnavailableError),
        (psycopg.errors.TooManyConnections("the secret text"), ProviderUnavailableError),
        (psycopg.errors.QueryCanceled("the secret text"), ProviderTimeoutError),
        (psycopg.errors.AdminShutdown("the secret text"), ProviderUnavailableError),
        (psycopg.errors.DeadlockDetected("the secret text"), ProviderUnavailableError),
        (psycopg.errors.ReadOnlySqlTransaction("the secret text"), ProviderUnavailableError),
        (psycopg.errors.UndefinedTable("the secret text"), ProviderError),
        (psycopg.errors.DivisionByZero("the secret text"), ProviderError),
        (psycopg.OperationalError("the secret text"), ProviderUnavailableError),
        (exc.TimeoutError("the secret text"), ProviderUnavailableError),
        (exc.IntegrityError("the secret text", None, sqlite3.IntegrityError("x")), ConflictError),
        (exc.ArgumentError("the secret text"), ProviderError),
        (ConnectionRefusedError("the secret text"), ProviderUnavailableError),
    ],
    ids=lambda value: getattr(value, "sqlite_errorcode", None) or getattr(value, "__name__", type(value).__name__),
)
def test_a_drivers_error_is_typed_by_its_class_and_code(theirs: Exception, ours: type[OpenProtoError]) -> None:
    driver = sqlite3.Error if isinstance(theirs, sqlite3.Error) else psycopg.Error
    wrapped = exc.DBAPIError.instance("INSERT ...", None, theirs, driver) if isinstance(theirs, driver) else theirs
    assert isinstance(wrapped, Exception)
    error = typed_error(wrapped)
    assert type(error) is ours
    assert "secret" not in str(error)


async def opened(provider: Memori) -> None:
    async with AsyncMemory(provider):
        pass


async def test_a_wrong_password_is_unauthorized(models: Path) -> None:
    """A server of our own that asks for a password and takes none."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (length := int.from_bytes(await reader.readexactly(4))) == 8:
            await reader.readexactly(4)
            writer.write(b"N")  # neither TLS nor GSSAPI
        await reader.readexactly(length - 4)
        writer.write(b"R" + (8).to_bytes(4) + (3).to_bytes(4))  # the password, in clear
        await reader.readexactly(1)
        await reader.readexactly(int.from_bytes(await reader.readexactly(4)) - 4)
        fields = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
        writer.write(b"E" + (4 + len(fields)).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1")
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UnauthorizedError) as refused:
            await opened(Memori(f"postgresql://app:correct-horse@127.0.0.1:{port}/x", models=models))
    assert "correct-horse" not in _whole_chain(refused.value)


async def test_a_locked_file_is_soon_unavailable(database: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.2)
    async with AsyncMemory(Memori(database, models=models), retries=0) as memory:
        await memory.add("a note", user_id="ann")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ProviderUnavailableError, match="lock"):
                await memory.add("another", user_id="ann")
            assert len((await memory.list("ann")).items) == 1  # a reader does not wait
        await memory.add("another", user_id="ann")


@pytest.mark.parametrize(
    ("name", "told"), [("/dev/null/memori.db", "cannot be created"), ("text.db", "not a SQLite database")]
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, models: Path, name: str, told: str) -> None:
    (tmp_path / "text.db").write_bytes(b"this is a text of some length, and no database at all. " * 100)
    with pytest.raises(ProviderError, match=told):
        await opened(Memori(tmp_path / name, models=models))


async def test_an_error_in_the_engines_callback_is_raised(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.add("a note", user_id="ann")

    def broken(self: Any, numbers: Any) -> Any:
        raise ProviderUnavailableError("the database went away")

    with monkeypatch.context() as failing:
        failing.setattr(store.Store, "texts", broken)
        with pytest.raises(ProviderUnavailableError, match="went away"):
            await memory.search("note", "ann")
    assert await memory.search("note", "ann")


def test_a_missing_model_says_what_to_do(run_python: RunPython, database: Path, tmp_path: Path, models: Path) -> None:
    program = """
import sys
from openproto import Memory, ProviderUnavailableError
memory = Memory("memori", url=sys.argv[1], models=sys.argv[2], retries=0)
try:
    memory.add("a note", user_id="ann")
except ProviderUnavailableError as error:
    assert "models=" in str(error), error
    print("unavailable")
memory.close()
with Memory("memori", url=sys.argv[1], models=sys.argv[3]) as other:  # a failure is not remembered
    other.add("a note", user_id="ann")
"""
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    ended = run_python(program, database, tmp_path / "empty", models, env=nowhere)
    assert (ended.returncode, ended.stdout) == (0, "unavailable\n"), ended.stderr


def _whole_chain(error: BaseException | None) -> str:
    shown: list[str] = []
    while error is not None:
        shown += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(shown)


async def test_connections_that_the_server_ended_are_replaced(server: str, models: Path) -> None:
    async with AsyncMemory(Memori(server, models=models), retries=0) as memory:
        await memory.add("before", user_id="restarted")
        with psycopg.connect(server) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await memory.add("after", user_id="restarted")
        assert await memory.delete_all("restarted") == 2


async def test_a_role_that_may_not_create_tables_uses_those_that_are_there(server: str, models: Path) -> None:
    async with AsyncMemory(Memori(server, models=models)) as owner:
        await owner.add("the owner's", user_id="granted")
    restricted = server.replace("ordinary@", "restricted@", 1)
    with psycopg.connect(server) as other:
        other.execute("CREATE ROLE restricted LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(ScopeDeniedError):
        await opened(Memori(restricted, models=models))
    with psycopg.connect(server) as other:
        other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO restricted")
        other.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO restricted")
    async with AsyncMemory(Memori(restricted, models=models)) as memory:
        await memory.add("the role's", user_id="granted")
        assert await memory.delete_all("granted") == 2


async def test_an_error_of_the_database_repeats_no_memory(memory: AsyncMemory, sql: Sql) -> None:
    sql("ALTER TABLE openproto_memory DROP COLUMN scope")
    with pytest.raises(ProviderError) as failed:
        await memory.add("a very private note", user_id="ann", tags=["a very private tag"])
    assert failed.value.__cause__ is not None
    assert "private" not in _whole_chain(failed.value)
