"""What Memori does wrong, kept away from whoever uses it through openproto."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from memori_tools import RunPython, Sql, WriteFact
from openproto_adapters.memori import Memori
from openproto_adapters.memori.rows import entity

from openproto import AsyncMemory, Memory


async def test_a_user_called_by_a_number_sees_none_of_the_users_with_that_row_number(memory: AsyncMemory) -> None:
    await memory.add("Alice's cat is called Momo", user_id="alice")  # the first entity, and so number 1
    await memory.add("my own dog", user_id="1")
    assert [found.memory.content for found in await memory.search("what is the pet called", "1")] == ["my own dog"]
    assert [record.content for record in (await memory.list("1")).items] == ["my own dog"]


@pytest.mark.parametrize("user_id", ["1", "12345", "١٢", " alice", "alice ", "a" * 101, "openproto:x"])
def test_ids_that_memori_takes_for_something_else_are_never_its_names(user_id: str) -> None:
    assert entity(user_id) != user_id
    assert not entity(user_id).isdigit()
    assert len(entity(user_id)) <= 100


async def test_texts_without_latin_letters_are_kept_apart(memory: AsyncMemory) -> None:
    texts = ["我喜欢咖啡", "我住在北京", "Я люблю чай", "I like C++", "I like C#", "I like C", "I like C"]
    for text in texts:
        await memory.add(text, user_id="ann")
    assert sorted(record.content for record in (await memory.list("ann")).items) == sorted(texts)


@pytest.mark.parametrize("vector", [b"", b"\0" * 8], ids=["no vector", "the vector of another model"])
async def test_a_fact_without_a_vector_does_not_break_the_search(
    memory: AsyncMemory, memoris_own: WriteFact, vector: bytes
) -> None:
    await memory.add("the cat sleeps on the sofa", user_id="ann")
    memoris_own("ann", "the parrot Kiwi sings", vector)
    found = [result.memory.content for result in await memory.search("the parrot", "ann")]
    assert sorted(found) == ["the cat sleeps on the sofa", "the parrot Kiwi sings"]


async def test_no_fact_is_written_without_a_vector_of_full_length(memory: AsyncMemory, sql: Sql) -> None:
    await memory.add("\u200b\u200b", user_id="ann")  # nothing that Memori's engine embeds
    await memory.add("a text", user_id="ann")
    assert {length for (length,) in sql("SELECT length(content_embedding) FROM memori_entity_fact")} == {4 * 384}


async def test_concurrent_users_of_one_client_keep_what_is_theirs(memory: AsyncMemory) -> None:
    users = [f"user {n}" for n in range(20)]
    await asyncio.gather(*(memory.add(f"the secret of {user}", user_id=user) for user in users))
    found = await asyncio.gather(*(memory.search("secret", user) for user in users))
    assert [[one.memory.content for one in results] for results in found] == [[f"the secret of {u}"] for u in users]


@pytest.mark.promise(67)
@pytest.mark.promise(68)
@pytest.mark.promise(72)
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
async def test_a_hundred_workers_are_served_with_as_many_threads_and_connections_as_the_width_says(
    where: str, database: Path, server: str, models: Path
) -> None:
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
            assert _connections(server) <= most
    deadline = time.monotonic() + 10
    while where == "postgresql" and _connections(server):  # a backend takes a moment to end
        assert time.monotonic() < deadline, "a connection is left"
        await asyncio.sleep(0.05)


def _connections(server: str) -> int:
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(server) as other:
        (found,) = other.execute(count).fetchone() or (0,)
    return int(found)


@pytest.mark.promise(74)
async def test_clients_share_one_engine_so_that_memory_does_not_grow_with_them(
    memory: AsyncMemory, tmp_path: Path, models: Path
) -> None:
    await memory.add("the first client has loaded the model", user_id="ann")
    before = _native_threads()
    clients = [AsyncMemory(Memori(tmp_path / f"{n}.db", models=models)) for n in range(5)]
    for client in clients:
        await client.add("a note", user_id="ann")
        assert await client.search("note", "ann")
    # The engine's runtime may start a worker or two while it answers; an engine more brings its own five at once.
    assert _native_threads() - before < 5
    for client in clients:
        await client.aclose()


def _native_threads() -> int:
    """How many threads this process has that Python did not start."""
    return len(os.listdir("/proc/self/task")) - threading.active_count()


async def test_closing_twice_is_closing_once_and_a_later_call_says_what_happened(database: Path, models: Path) -> None:
    provider = Memori(database, models=models)
    memory = AsyncMemory(provider)
    await memory.add("a note", user_id="ann")
    await memory.aclose()
    await memory.aclose()
    await provider.close()
    with pytest.raises(RuntimeError, match="AsyncMemory is closed"):
        await memory.get("x")


def test_what_was_added_is_there_for_the_next_process_without_any_waiting(
    run_python: RunPython, database: Path, models: Path
) -> None:
    program = """
import os, sys
from openproto import Memory
memory = Memory("memori", url=sys.argv[1], models=sys.argv[2])
memory.add("the last words", user_id="ann")
os._exit(0)
"""
    assert run_python(program, database, models).returncode == 0
    with Memory(Memori(database, models=models)) as memory:
        assert [record.content for record in memory.list("ann").items] == ["the last words"]


def test_nothing_is_printed_and_no_thread_of_python_is_left(
    run_python: RunPython, database: Path, models: Path
) -> None:
    program = """
import asyncio, sys, threading
from openproto import AsyncMemory

async def main():
    async with AsyncMemory("memori", url=sys.argv[1], models=sys.argv[2]) as memory:
        await memory.add("a note", user_id="ann")
        assert await memory.search("note", "ann")

asyncio.run(main())
left = [t for t in threading.enumerate() if t is not threading.current_thread()]
for thread in left:
    thread.join(5)
assert not any(thread.is_alive() for thread in left), left
"""
    ended = run_python(program, database, models)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


SECCOMP = """
import ctypes, json, platform, socket, sys
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


needs_seccomp = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="seccomp is Linux's"
)


@needs_seccomp
def test_the_network_is_never_tried(run_python: RunPython, database: Path, models: Path) -> None:
    attempt = "socket.socket(socket.AF_INET, socket.SOCK_STREAM)"
    assert run_python(SECCOMP + attempt).returncode < 0, "the guard must end whoever tries"
    work = """
from openproto import Memory
with Memory("memori", url=sys.argv[1], models=sys.argv[2]) as memory:
    record = memory.add("Our cat sleeps on the sofa", user_id="ann")
    memory.update(record.id, content="Our cat sleeps on the chair")
    found = memory.search("a kitten napping", "ann")
    memory.delete(record.id)
print(json.dumps(found[0].memory.content))
"""
    ended = run_python(SECCOMP + work, database, models)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == "Our cat sleeps on the chair"


@needs_seccomp
def test_no_model_is_taken_from_the_working_directory_or_put_there(
    run_python: RunPython, models: Path, tmp_path: Path
) -> None:
    (tmp_path / ".fastembed_cache").mkdir()
    (tmp_path / "openproto").mkdir()
    (tmp_path / "openproto" / "memori").symlink_to(models)
    program = """
import sys
from openproto import Memory
with Memory("memori", url="notes.db") as memory:
    memory.add("a note", user_id="ann")
"""
    environment = {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path), "FASTEMBED_CACHE_DIR": ""}
    ended = run_python(SECCOMP + program, cwd=tmp_path, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [".fastembed_cache", "notes.db", "openproto"]
    assert not any((tmp_path / ".fastembed_cache").iterdir())


def test_a_native_library_in_the_working_directory_is_not_loaded(
    run_python: RunPython, database: Path, models: Path, tmp_path: Path
) -> None:
    planted = tmp_path / "target" / "release"
    planted.mkdir(parents=True)
    (planted / "libmemori_python.so").write_bytes(b"not a library")
    program = """
import sys
from openproto import Memory
with Memory("memori", url=sys.argv[1], models=sys.argv[2]) as memory:
    memory.add("a note", user_id="ann")
import memori_python
assert "site-packages" in memori_python.__file__, memori_python.__file__
"""
    ended = run_python(program, database, models, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr


async def test_memoris_own_search_finds_what_was_added_here(memory: AsyncMemory, database: Path, sql: Sql) -> None:
    await memory.add("Our cat sleeps on the sofa", user_id="ann")
    ((number, embedding),) = sql("SELECT entity_id, content_embedding FROM memori_entity_fact")
    assert number == 1
    assert len(embedding) == 4 * 384
    found: list[dict[str, Any]] = await asyncio.to_thread(_memoris_search, database, "ann", "the cat")
    assert [fact["content"] for fact in found] == ["Our cat sleeps on the sofa"]


def _memoris_search(database: Path, user_id: str, query: str) -> list[dict[str, Any]]:
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
    adapter = RustCoreAdapter.maybe_create(config)
    assert adapter is not None
    with native._environment(next(folder for folder in native._engines if folder)):
        found = adapter.retrieve_facts(query=query, entity_id=user_id, limit=5, dense_limit=1000)
    storage.adapter.close()
    engine.dispose()
    return found
