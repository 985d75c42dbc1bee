"""Others on the same file: nothing is lost when they write at once, are locked out, or are killed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlite_tools import check_consistent, locked, memory, rows

from openproto import ProviderUnavailableError

STAYS = """
with openproto.Memory("sqlite", path=path, **options) as memory:
    for n in range(20):
        memory.add(f"{name} {n}", user_id="ada")
        memory.search(name, "ada")
"""
COMES_AND_GOES = """
for n in range(20):
    with openproto.Memory("sqlite", path=path, **options) as memory:
        memory.get(memory.add(f"{name} {n}", user_id="ada").id)
"""
START = """
import sys, openproto
path, name = sys.argv[1:]
options = {"embedder": "none", "synchronous": "normal", "retries": 0}
print("ready", flush=True)
sys.stdin.readline()
"""


def test_processes_that_write_at_once_to_a_new_file_lose_nothing(start_python: Any, path: Path) -> None:
    programs = {"one": STAYS, "two": STAYS, "three": COMES_AND_GOES, "four": COMES_AND_GOES}
    processes = [start_python(START + program, path, name) for name, program in programs.items()]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    ends = [(process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(returncode, err) for (_, err), returncode in ends] == [(0, "")] * len(processes)
    contents = {content for (content,) in rows(path, "SELECT content FROM memories")}
    assert contents == {f"{name} {n}" for name in programs for n in range(20)}
    assert check_consistent(path) == len(contents)


async def test_a_file_that_another_keeps_locked_is_read_and_each_write_is_a_typed_error(path: Path) -> None:
    async with memory(path, lock_timeout=0.2, audit_reads=False) as client:
        added = await client.add("green tea", user_id="ada")
        with locked(path):
            started = asyncio.get_running_loop().time()
            calls = [client.add(f"note {n}", user_id="ada") for n in range(20)]
            errors: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            assert asyncio.get_running_loop().time() - started < 20 * 0.2
            assert {(type(error), error.retryable) for error in errors} == {(ProviderUnavailableError, True)}
            assert "locked" in errors[0].message
            assert len({error.request_id for error in errors}) == 20
            assert await client.get(added.id) == added
            assert len(await client.search("tea", "ada")) == 1
        await client.add("after", user_id="ada")
    assert check_consistent(path) == 2


async def test_writing_and_opening_wait_for_another_in_bounded_time(path: Path) -> None:
    async with memory(path, lock_timeout=20) as client:
        await client.add("before", user_id="ada")
        with locked(path):
            adding = asyncio.create_task(client.add("meanwhile", user_id="ada"))
            await asyncio.sleep(0.2)
            assert not adding.done()
        assert (await adding).content == "meanwhile"
    with locked(path, "exclusive"):
        with pytest.raises(ProviderUnavailableError, match="locked"):
            async with memory(path, lock_timeout=0.2):
                pass
        client = memory(path, lock_timeout=20)
        opening = asyncio.create_task(client.__aenter__())
        await asyncio.sleep(0.2)
        assert not opening.done()
    await opening
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


@pytest.mark.parametrize("acknowledged", [1, 60])
async def test_a_killed_process_loses_nothing_acknowledged(start_python: Any, path: Path, acknowledged: int) -> None:
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
