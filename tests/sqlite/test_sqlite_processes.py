"""Several processes on one file: nothing is lost when they write at once, are locked out, or are killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlite_tools import check_consistent, memory, rows

from openproto import ProviderUnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


STAYS = """
with openproto.Memory("sqlite", path=path, **options) as memory:
    for n in range(count):
        memory.add(f"{name} {n}", user_id="ada")
        memory.search(name, "ada")
"""
COMES_AND_GOES = """
for n in range(count):
    with openproto.Memory("sqlite", path=path, **options) as memory:
        memory.get(memory.add(f"{name} {n}", user_id="ada").id)
"""
START = """
import sys, openproto
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
options = {"embedder": "none", "synchronous": "normal", "retries": 0}
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize(
    ("program", "names", "count"),
    [(STAYS, ["one", "two", "three"], 40), (COMES_AND_GOES, ["one", "two"], 25)],
    ids=["stays", "comes and goes"],
)
def test_processes_that_write_at_once_to_a_new_file_lose_nothing(
    start_python: Any, path: Path, program: str, names: list[str], count: int
) -> None:
    finish([start_python(START + program, path, name, count) for name in names])
    contents = {content for (content,) in rows(path, "SELECT content FROM memories")}
    assert contents == {f"{name} {n}" for name in names for n in range(count)}
    assert check_consistent(path) == len(contents)


def finish(processes: list[Any]) -> None:
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=120), process.returncode) for process in processes]
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


async def test_a_file_that_another_process_keeps_locked_is_read_and_a_write_is_a_typed_error(
    start_python: Any, path: Path
) -> None:
    async with memory(path, lock_timeout=0.2, audit_reads=False) as client:
        added = await client.add("green tea", user_id="ada")
        other = lock(start_python, path)
        with pytest.raises(ProviderUnavailableError, match="locked") as caught:
            await client.add("meanwhile", user_id="ada")
        assert caught.value.retryable
        assert await client.get(added.id) == added
        assert len(await client.search("tea", "ada")) == 1
        free(other)
        await client.add("after", user_id="ada")
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


async def test_opening_waits_for_a_process_that_has_the_file_for_itself_in_bounded_time(
    start_python: Any, path: Path
) -> None:
    async with memory(path) as client:
        await client.add("tea", user_id="ada")
    other = lock(start_python, path, "PRAGMA locking_mode = exclusive")
    with pytest.raises(ProviderUnavailableError, match="locked"):
        async with memory(path, lock_timeout=0.2):
            pass
    opening = asyncio.create_task(memory(path, lock_timeout=20).__aenter__())
    await asyncio.sleep(0.2)
    assert not opening.done()
    free(other)
    client = await opening
    await client.add("tea", user_id="ada")
    await client.aclose()


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
