"""What Memori does wrong by itself, and what goes wrong at the database, as typed errors that tell no secrets."""

from __future__ import annotations

import asyncio
import platform
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openproto_adapters.memori import Memori, store
from openproto_adapters.memori.errors import typed_error
from sqlalchemy import exc
from waiting import until

from openproto import AsyncMemory, errors
from openproto.blocking.imports import environment


async def test_users_that_memori_takes_for_others_are_kept_apart(memory: AsyncMemory, sql: Any) -> None:
    await memory.add("Alice's cat is called Momo", user_id="alice")  # the first entity, and so number 1
    for user in ("1", "12345", "١٢", " alice", "alice ", "a" * 101, "openproto:x"):
        await memory.add("my own dog", user_id=user)
        assert [found.memory.content for found in await memory.search("what is the pet called", user)] == ["my own dog"]
        assert [record.content for record in (await memory.list(user)).items] == ["my own dog"]
    names = [name for (name,) in sql("SELECT external_id FROM memori_entity")]
    assert names[0] == "alice"
    assert all(name.startswith("openproto:") and len(name) <= 100 and name != "openproto:x" for name in names[1:])
    assert {length for (length,) in sql("SELECT length(content_embedding) FROM memori_entity_fact")} == {4 * 384}


async def test_facts_without_a_vector_are_found_by_words(memory: AsyncMemory, memoris_own: Any) -> None:
    await memory.add("the cat sleeps on the sofa", user_id="ann")
    for name, vector in (("Kiwi", b""), ("Momo", b"\0" * 8)):
        memoris_own("ann", f"the parrot {name} sings", vector)
    found = sorted([result.memory.content for result in await memory.search("the parrot", "ann")])
    assert found == ["the cat sleeps on the sofa", "the parrot Kiwi sings", "the parrot Momo sings"]


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_the_width_bounds_threads_and_connections(where: str, database: Path, server: str, models: Path) -> None:
    width, names = 3, set[str]()
    most = width + (1 if where == "sqlite" else width)

    async def work(n: int) -> bool:
        user = f"{where} worker {n}"
        await memory.add(f"the note of {user}", user_id=user)
        names.update(thread.name for thread in threading.enumerate())
        (found,) = await memory.search("note", user)
        return found.memory.content == f"the note of {user}"

    url = database if where == "sqlite" else server
    async with AsyncMemory(Memori(url, models=models, width=width)) as memory:
        assert all(await asyncio.gather(*(work(n) for n in range(100))))
        assert len({name for name in names if name.startswith("openproto-memori")}) <= most
        if where == "postgresql":
            assert len(connections(server)) <= most
    await until(lambda: where == "sqlite" or not connections(server))  # a backend takes a moment to end


def connections(server: str) -> list[Any]:
    count = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(server) as other:
        return other.execute(count).fetchall()


async def test_clients_share_one_engine(memory: AsyncMemory, tmp_path: Path, models: Path) -> None:
    provider: Any = memory._session.provider
    async with AsyncMemory(other := Memori(tmp_path / "other.db", models=models)):
        assert other.backend.engine is provider.backend.engine


SECCOMP = """
import ctypes, platform, socket, sys, threading
import urllib3  # binds a socket to ::1 when it is imported, to see whether there is IPv6

class Step(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint)]

class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.POINTER(Step))]

def forbid_the_network():
    # The kernel ends the process at the first socket(AF_INET or AF_INET6), whichever library asks for it.
    load, equals, end = 0x20, 0x15, 0x06
    call = {"x86_64": 41, "aarch64": 198}[platform.machine()]
    steps = [(load, 0, 0, 0), (equals, 0, 4, call), (load, 0, 0, 16), (equals, 1, 0, 2), (equals, 0, 1, 10),
             (end, 0, 0, 0x80000000), (end, 0, 0, 0x7FFF0000)]
    array = (Step * len(steps))(*(Step(*step) for step in steps))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), array)), 0, 0) == 0

forbid_the_network()
"""


WORK = """
from openproto import Memory
with Memory("memori", url="notes.db") as memory:
    record = memory.add("Our cat sleeps on the sofa", user_id="ann")
    memory.update(record.id, content="Our cat sleeps on the chair")
    found = memory.search("a kitten napping", "ann")
    memory.delete(record.id)
assert found[0].memory.content == "Our cat sleeps on the chair"
left = [thread for thread in threading.enumerate() if thread.name.startswith("openproto-memori")]
for thread in left:
    thread.join(5)
assert not any(thread.is_alive() for thread in left), left
import memori_python
assert "site-packages" in memori_python.__file__, memori_python.__file__
"""


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="seccomp is Linux's"
)
def test_it_keeps_to_itself(run_python: Any, models: Path, tmp_path: Path) -> None:
    attempt = "socket.socket(socket.AF_INET, socket.SOCK_STREAM)"
    assert run_python(SECCOMP + attempt).returncode < 0, "the guard must end whoever tries"
    (tmp_path / ".fastembed_cache").mkdir()
    (tmp_path / "openproto").mkdir()
    (tmp_path / "openproto" / "memori").symlink_to(models)
    planted = tmp_path / "target" / "release"
    planted.mkdir(parents=True)
    (planted / "libmemori_python.so").write_bytes(b"not a library")
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "FASTEMBED_CACHE_DIR": ""}
    ended = run_python(SECCOMP + WORK, cwd=tmp_path, env=environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fastembed_cache", "notes.db", "openproto", "target"]
    assert not any((tmp_path / ".fastembed_cache").iterdir())


async def test_memoris_own_search_finds_what_was_added_here(memory: AsyncMemory, database: Path, sql: Any) -> None:
    await memory.add("Our cat sleeps on the sofa", user_id="ann")
    ((number, embedding),) = sql("SELECT entity_id, content_embedding FROM memori_entity_fact")
    assert number == 1
    assert len(embedding) == 4 * 384
    found = await asyncio.to_thread(memoris_search, database, entity_id="ann", query="the cat")
    assert [fact["content"] for fact in found] == ["Our cat sleeps on the sofa"]


def memoris_search(database: Path, **asked: str) -> Any:
    """Search as a program does that uses Memori itself, with the engine that is loaded."""
    from memori._config import Config
    from memori._rust_core import RustCoreAdapter
    from memori.storage import Manager
    from openproto_adapters.memori import native
    from sqlalchemy import create_engine
    from sqlalchemy.orm import sessionmaker

    config: Any = Config()
    config.byodb = True
    engine = create_engine(f"sqlite:///{database}")
    storage: Any = Manager(config).start(sessionmaker(engine))
    config.storage = storage
    adapter: Any = RustCoreAdapter.maybe_create(config)
    with environment(native._environment(next(folder for folder in native._engines if folder))):
        found = adapter.retrieve_facts(**asked, limit=5, dense_limit=1000)
    storage.adapter.close()
    engine.dispose()
    return found


def sqlite_error(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("the secret text")
    error.sqlite_errorcode = code
    return error


_BUSY, _IO = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT), (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)
_PG = psycopg.errors
TYPED: dict[type[errors.OpenProtoError], list[Exception | type[Exception]]] = {
    errors.ProviderUnavailableError: [
        *map(sqlite_error, (*_BUSY, *_IO)),
        *(_PG.DiskFull, _PG.TooManyConnections, _PG.AdminShutdown, _PG.DeadlockDetected, _PG.ReadOnlySqlTransaction),
        *(psycopg.OperationalError, exc.TimeoutError, ConnectionRefusedError),
    ],
    errors.ScopeDeniedError: [sqlite_error(sqlite3.SQLITE_READONLY), _PG.InsufficientPrivilege],
    errors.UnauthorizedError: [_PG.InvalidPassword],
    errors.ProviderTimeoutError: [_PG.QueryCanceled],
    errors.ConflictError: [exc.IntegrityError("the secret text", None, sqlite3.IntegrityError("x"))],
    errors.ProviderError: [
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
        with pytest.raises(errors.UnauthorizedError) as refused:
            await Memori(f"postgresql://app:correct-horse@127.0.0.1:{port}/x", models=models).open()
    assert "correct-horse" not in whole_chain(refused.value)


async def test_locked_or_damaged_files(database: Path, models: Path, sql: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_WAIT", 0.2)
    async with AsyncMemory(Memori(database, models=models), retries=0) as memory:
        await memory.add("a note", user_id="ann")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(errors.ProviderUnavailableError, match="lock"):
                await memory.add("another", user_id="ann")
            assert len((await memory.list("ann")).items) == 1  # a reader does not wait
        sql("ALTER TABLE openproto_memory DROP COLUMN scope")
        with pytest.raises(errors.ProviderError) as failed:
            await memory.add("a very private note", user_id="ann", tags=["a very private tag"])
        assert failed.value.__cause__ is not None
        assert "private" not in whole_chain(failed.value)


@pytest.mark.parametrize(
    ("name", "told"), [("/dev/null/memori.db", "cannot be created"), ("text.db", "not a SQLite database")]
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, models: Path, name: str, told: str) -> None:
    (tmp_path / "text.db").write_bytes(b"this is a text of some length, and no database at all. " * 100)
    with pytest.raises(errors.ProviderError, match=told):
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
        raise errors.ProviderUnavailableError("the database went away")

    with monkeypatch.context() as failing:
        failing.setattr(store.Store, "texts", broken)
        with pytest.raises(errors.ProviderUnavailableError, match="went away"):
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
    with pytest.raises(errors.ScopeDeniedError):
        await Memori(restricted, models=models).open()
    with psycopg.connect(server) as other:
        other.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO restricted")
        other.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO restricted")
    async with AsyncMemory(Memori(restricted, models=models)) as memory:
        await memory.add("the role's", user_id="granted")
        assert await memory.delete_all("granted") == 3
