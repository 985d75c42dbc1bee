"""Several processes on one file: nothing is lost when they write at once, are locked out, or are killed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from sqlite_tools import check_consistent, memory, rows

from openproto import ProviderUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


WRITER = """
import sys, openproto
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with openproto.Memory(path=path, embedder="none", synchronous="normal", retries=0) as memory:
    for n in range(count):
        memory.add(f"{name} {n}", user_id="ada")
        memory.search(name, "ada")
"""


def test_processes_that_write_at_once_to_a_new_file_lose_nothing(start_python: Any, path: Path) -> None:
    writers = [start_python(WRITER, path, name, 40) for name in ("one", "two", "three")]
    finish(writers)
    contents = {content for (content,) in rows(path, "SELECT content FROM memories")}
    assert contents == {f"{name} {n}" for name in ("one", "two", "three") for n in range(40)}
    assert check_consistent(path) == 120


COMER_AND_GOER = """
import sys, openproto
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
for n in range(count):
    with openproto.Memory(path=path, embedder="none", synchronous="normal", retries=0) as memory:
        memory.get(memory.add(f"{name} {n}", user_id="ada").id)
"""


def test_processes_that_come_and_go_do_not_fail_one_another(start_python: Any, path: Path) -> None:
    finish([start_python(COMER_AND_GOER, path, name, 25) for name in ("one", "two")])
    assert check_consistent(path) == 50


def finish(processes: list[Any]) -> None:
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=60), process.returncode) for process in processes]
    assert [(returncode, err) for (_, err), returncode in ends] == [(0, "")] * len(processes)


LOCKER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.execute(sys.argv[2])
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
db.execute("ROLLBACK")
db.close()
print("free", flush=True)
sys.stdin.readline()
"""


def lock(start_python: Any, path: Path, first: str = "SELECT 1") -> Any:
    process = start_python(LOCKER, path, first)
    assert process.stdout.readline() == "locked\n"
    return process


def free(process: Any) -> None:
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "free\n"


async def test_a_file_that_another_process_keeps_locked_is_a_typed_error_in_bounded_time(
    start_python: Any, path: Path
) -> None:
    async with memory(path, lock_timeout=0.2, audit_reads=False) as client:
        await client.add("before", user_id="ada")
        other = lock(start_python, path)
        start = time.monotonic()
        with pytest.raises(ProviderUnavailableError, match="locked") as caught:
            await client.add("meanwhile", user_id="ada")
        assert time.monotonic() - start < 5
        assert caught.value.retryable
        free(other)
        await client.add("after", user_id="ada")
        assert [found.content async for found in client.iter("ada")] == ["after", "before"]
    assert check_consistent(path) == 2


async def test_a_write_waits_for_another_process_that_is_writing(start_python: Any, path: Path) -> None:
    async with memory(path, lock_timeout=20) as client:
        await client.add("before", user_id="ada")
        other = lock(start_python, path)
        adding = asyncio.create_task(client.add("meanwhile", user_id="ada"))
        await asyncio.sleep(0.2)
        assert not adding.done()
        free(other)
        assert (await adding).content == "meanwhile"


async def test_reading_goes_on_while_another_process_is_writing(start_python: Any, path: Path) -> None:
    async with memory(path, lock_timeout=0.2, audit_reads=False) as client:
        added = await client.add("green tea", user_id="ada")
        other = lock(start_python, path)
        assert (await client.get(added.id)).content == "green tea"
        assert len(await client.search("tea", "ada")) == 1
        free(other)


async def test_opening_waits_for_a_process_that_has_the_file_for_itself(start_python: Any, path: Path) -> None:
    async with memory(path):
        pass
    other = lock(start_python, path, "PRAGMA locking_mode = exclusive")
    opening = asyncio.create_task(memory(path, lock_timeout=20).__aenter__())
    await asyncio.sleep(0.2)
    assert not opening.done()
    free(other)
    client = await opening
    await client.add("tea", user_id="ada")
    await client.aclose()


async def test_a_file_that_another_process_has_for_itself_is_a_typed_error_in_bounded_time(
    start_python: Any, path: Path
) -> None:
    async with memory(path):
        pass
    other = lock(start_python, path, "PRAGMA locking_mode = exclusive")
    with pytest.raises(ProviderUnavailableError, match="locked"):
        async with memory(path, lock_timeout=0.2):
            pass
    free(other)
    async with memory(path) as client:
        await client.add("tea", user_id="ada")


async def test_closing_does_not_wait_for_a_lock_longer_than_close_timeout(start_python: Any, path: Path) -> None:
    client = memory(path, lock_timeout=60, client={"close_timeout": 0.4})
    added = await client.add("tea", user_id="ada")
    await client.get(added.id)  # leaves an audit entry to be written
    other = lock(start_python, path)
    async with asyncio.timeout(10):
        await client.aclose()
    free(other)
    assert check_consistent(path) == 1


KILLED = """
import sys, openproto
memory = openproto.Memory(path=sys.argv[1], embedder="none")
old = memory.add("the first", user_id="ada").id
print(old, flush=True)
for n in range(100_000):
    old = memory.add(f"memory {n} " + "x" * 5000, user_id="ada", supersedes=[old]).id
    print(old, flush=True)
"""


@pytest.mark.parametrize("acknowledged", [1, 20, 60])
async def test_a_process_that_is_killed_loses_nothing_that_was_acknowledged(
    start_python: Any, path: Path, acknowledged: int
) -> None:
    process = start_python(KILLED, path)
    ids = [process.stdout.readline().strip() for _ in range(acknowledged)]
    process.kill()
    rest, _ = process.communicate(timeout=30)
    ids += rest.split("\n")[:-1]
    count = check_consistent(path)
    assert len(ids) <= count <= len(ids) + 1
    superseded = rows(path, "SELECT count(*) FROM memories WHERE superseded_by IS NOT NULL")
    assert superseded == [(count - 1,)]
    async with memory(path) as client:
        for id in ids:
            await client.get(id, user_id="ada")
        await client.add("life goes on", user_id="ada")


async def test_two_clients_see_each_others_writes_at_once(path: Path) -> None:
    async with memory(path) as one, memory(path) as two:
        added = await one.add("tea", user_id="ada")
        assert await two.get(added.id) == added
        await two.delete(added.id)
        assert (await one.list("ada")).items == []


async def test_the_same_idempotency_key_in_two_clients_at_once_is_one_memory(path: Path) -> None:
    async with memory(path) as one, memory(path) as two:
        adds = [
            client.add("tea", user_id="ada", idempotency_key=f"k{n}") for n in range(10) for client in (one, two, one)
        ]
        found = await asyncio.gather(*adds)
    assert len({record.id for record in found}) == 10
    assert check_consistent(path) == 10
