"""What goes wrong at the database and in the engine, as typed errors that come soon and tell no secrets."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
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


_BUSY, _IO = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT), (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
_PG = psycopg.errors
TYPED: dict[type[OpenProtoError], list[Exception | type[Exception]]] = {
    ProviderUnavailableError: [
        *map(sqlite_error, (*_BUSY, *_IO)),
        *(_PG.DiskFull, _PG.TooManyConnections, _PG.AdminShutdown, _PG.DeadlockDetected, _PG.ReadOnlySqlTransaction),
        *(psycopg.OperationalError, exc.TimeoutError, ConnectionRefusedError),
    ],
    ScopeDeniedError: [sqlite_error(sqlite3.SQLITE_READONLY), _PG.InsufficientPrivilege],
    UnauthorizedError: [_PG.InvalidPassword],
    ProviderTimeoutError: [_PG.QueryCanceled],
    ConflictError: [exc.IntegrityError("the secret text", None, sqlite3.IntegrityError("x"))],
    ProviderError: [
        *map(sqlite_error, (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR)),
        *(_PG.InvalidCatalogName, _PG.UndefinedTable, _PG.DivisionByZero, exc.ArgumentError),
    ],
}


def test_a_drivers_error_is_typed_by_its_class_and_code() -> None:
    for ours, theirs in ((ours, one) for ours, several in TYPED.items() for one in several):
        raised: Any = theirs("the secret text") if isinstance(theirs, type) else theirs
        for driver in (sqlite3.Error, psycopg.Error):
            if isinstance(raised, driver):
                raised = exc.DBAPIError.instance("INSERT ...", None, raised, driver)
        error = typed_error(raised)
        assert type(error) is ours, theirs
        assert "secret" not in str(error)


def whole_chain(error: BaseException | None) -> str:
    return f"{error} {error!r}\n{whole_chain(error.__cause__ or error.__context__)}" if error else ""


async def test_a_wrong_password_is_unauthorized(models: Path) -> None:
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
            await Memori(f"postgresql://app:correct-horse@127.0.0.1:{port}/x", models=models).open()
    assert "correct-horse" not in whole_chain(refused.value)


async def test_a_locked_and_a_damaged_file(
    database: Path, models: Path, sql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.2)
    async with AsyncMemory(Memori(database, models=models), retries=0) as memory:
        await memory.add("a note", user_id="ann")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(ProviderUnavailableError, match="lock"):
                await memory.add("another", user_id="ann")
            assert len((await memory.list("ann")).items) == 1  # a reader does not wait
        sql("ALTER TABLE openproto_memory DROP COLUMN scope")
        with pytest.raises(ProviderError) as failed:
            await memory.add("a very private note", user_id="ann", tags=["a very private tag"])
        assert failed.value.__cause__ is not None
        assert "private" not in whole_chain(failed.value)


@pytest.mark.parametrize(
    ("name", "told"), [("/dev/null/memori.db", "cannot be created"), ("text.db", "not a SQLite database")]
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, models: Path, name: str, told: str) -> None:
    (tmp_path / "text.db").write_bytes(b"this is a text of some length, and no database at all. " * 100)
    with pytest.raises(ProviderError, match=told):
        await Memori(tmp_path / name, models=models).open()


MISSING = """
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


def test_a_missing_model_says_what_to_do(run_python: Any, database: Path, tmp_path: Path, models: Path) -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    ended = run_python(MISSING, database, tmp_path / "empty", models, env=nowhere)
    assert (ended.returncode, ended.stdout) == (0, "unavailable\n"), ended.stderr


async def test_an_error_in_the_engines_callback_is_raised(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.add("a note", user_id="ann")

    def broken(self: Any, numbers: Any) -> Any:
        raise ProviderUnavailableError("the database went away")

    with monkeypatch.context() as failing:
        failing.setattr(store.Store, "texts", broken)
        with pytest.raises(ProviderUnavailableError, match="went away"):
            await memory.search("note", "ann")
    assert await memory.search("note", "ann")


async def test_lost_connections_and_a_role_with_few_rights(server: str, models: Path) -> None:
    async with AsyncMemory(Memori(server, models=models), retries=0) as owner:
        await owner.add("the owner's", user_id="granted")
        with psycopg.connect(server) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await owner.add("after", user_id="granted")
    restricted = server.replace("ordinary@", "restricted@", 1)
    with psycopg.connect(server) as other:
        other.execute("CREATE ROLE restricted LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(ScopeDeniedError):
        await Memori(restricted, models=models).open()
    with psycopg.connect(server) as other:
        other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO restricted")
        other.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO restricted")
    async with AsyncMemory(Memori(restricted, models=models)) as memory:
        await memory.add("the role's", user_id="granted")
        assert await memory.delete_all("granted") == 3
