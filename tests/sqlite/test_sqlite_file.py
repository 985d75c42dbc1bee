"""The file of the sqlite provider: where it is, who may read it, when it cannot be had, and others on it."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import stat
import tempfile
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite.schema import SCHEMA_VERSION
from sqlite_tools import check_consistent, database_of, memory, rows
from store_suites import locked

from openproto import AsyncMemory, Memory, NotFoundError, ProviderError, ProviderUnavailableError

OLD_SCHEMA = Path(__file__).with_name("schema_1.sql")


async def test_the_file_is_in_the_data_folder_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", "/nowhere")
    folder = tmp_path / "data" / "openproto"
    umask = os.umask(0)
    try:
        async with AsyncMemory(embedder="none") as client:
            await client.add("tea", user_id="ada")
            await client.search("tea", "ada")
            found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    finally:
        os.umask(umask)
    assert found == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}
    assert [file.name for file in folder.iterdir()] == ["memory.db"]
    assert not [file for file in open_files() if file.startswith(str(folder))]
    assert check_consistent(folder / "memory.db") == 1


def open_files() -> list[str]:
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


def open_fails(path: Path) -> ProviderError:
    with pytest.raises(ProviderError) as caught, Memory(path=path, embedder="none"):
        pytest.fail("the file was opened")
    assert not caught.value.retryable
    return caught.value


def test_what_is_not_a_database_is_named_and_left_alone_and_opening_may_be_repeated(path: Path, tmp_path: Path) -> None:
    diary = "Dear diary,\n" * 100
    path.write_text(diary)
    error = open_fails(path)
    assert (error.provider, "not an SQLite database" in error.message) == ("sqlite", True)
    assert "path" in open_fails(tmp_path).message
    assert str(path / "memory.db") in open_fails(path / "memory.db").message
    assert path.read_text() == diary
    client = Memory(path=path, embedder="none")
    with pytest.raises(ProviderError):
        client.list("ada")
    os.truncate(path, 0)
    assert client.list("ada").items == []
    client.close()


def test_a_damaged_file_is_a_typed_error(path: Path) -> None:
    with Memory(path=path, embedder="none") as client:
        client.add_many({"content": f"tea {n} " * 20, "user_id": "ada"} for n in range(50))
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * (path.stat().st_size - 4096))
    with pytest.raises(ProviderError, match="damaged"), Memory(path=path, embedder="none") as client:
        client.list("ada")


READ_ONLY = """
import json, os, sys, tempfile
import openproto
with tempfile.TemporaryDirectory() as folder, openproto.Memory(path=folder + "/x.db", embedder="none") as memory:
    memory.list("ada")  # imports whatever a call needs, while this user may still read it
if os.getuid() == 0:
    os.setuid(65534)
said = []
for path in sys.argv[1:]:
    try:
        with openproto.Memory(path=path, embedder="none", retries=0) as memory:
            said.append(str([record.content for record in memory.list("ada").items]))
            memory.add("tea", user_id="ada")
        said.append("stored")
    except openproto.ProviderError as error:
        said.append(f"{error.code} {error.message}")
print(json.dumps(said))
"""


def test_what_may_only_be_read_is_read_and_a_write_says_why_not(run_python: Any) -> None:
    # pytest's own folders are closed to other users, and root may write anywhere: hence this folder and that user.
    with tempfile.TemporaryDirectory() as outside:
        Path(outside).chmod(0o755)
        old_closed, old_open, new_closed, new_open = folders = [Path(outside) / f"{n}" for n in range(4)]
        for folder in folders:
            folder.mkdir()
        for folder in (old_closed, old_open):
            with Memory(path=folder / "memory.db", embedder="none") as client:
                client.add("tea", user_id="ada")
            (folder / "memory.db").chmod(0o444)
        for folder in folders:
            folder.chmod(0o777 if folder in (old_open, new_open) else 0o555)
        done = run_python(READ_ONLY, *(folder / "memory.db" for folder in folders))
        for folder in folders:
            folder.chmod(0o755)
        assert [os.listdir(folder) for folder in (old_closed, new_closed)] == [["memory.db"], []]
    assert done.returncode == 0, done.stderr
    read_closed, written_closed, read_open, written_open, new_refused, read_new, written_new = json.loads(done.stdout)
    assert read_closed == read_open == "['tea']"
    for refused in (written_closed, written_open):
        assert refused.startswith("provider_error ")
        assert "may only be read (writes are refused" in refused
    assert new_refused.startswith("provider_error ")
    assert "Permission denied" in new_refused
    assert (read_new, written_new) == ("[]", "stored")


async def test_a_read_makes_no_store_and_sees_the_one_that_another_makes(tmp_path: Path) -> None:
    path = tmp_path / "typo" / "memory.db"
    async with memory(path) as client:
        assert (await client.list("ada")).items == await client.search("tea", "ada") == await client.audit("ada") == []
        assert (await client.context("tea", "ada")).text == ""
        assert await client.delete_all("ada") == 0
        for call in (client.get("m1", user_id="ada"), client.update("m1", content="tea")):
            with pytest.raises(NotFoundError):
                await call
        assert os.listdir(tmp_path) == []
        async with memory(path) as writer:
            await writer.add("tea", user_id="ada")
        assert len((await client.list("ada")).items) == 1


@pytest.mark.parametrize("replaced", [False, True], ids=["moved", "replaced"])
async def test_a_file_that_goes_underneath_is_noticed_by_every_verb(path: Path, replaced: bool) -> None:
    async with memory(path) as client:
        record = await client.add("tea", user_id="ada")
        os.rename(path, path.with_name("moved.db"))
        if replaced:
            async with memory(path.with_name("other.db")) as other:
                await other.add("other", user_id="ada")
            os.replace(path.with_name("other.db"), path)
        for call in (
            client.add("milk", user_id="ada"),
            client.update(record.id, content="milk"),
            client.get(record.id),
            client.list("ada"),
            client.search("tea", "ada"),
        ):
            with pytest.raises(ProviderError, match="moved, deleted, or replaced"):
                await call
        assert ("memory.db" in os.listdir(path.parent)) == replaced


@pytest.mark.parametrize("spelling", ["~/memory.db", "sqlite:///memory.db", "sqlite:///{folder}/memory.db"])
def test_a_path_means_what_people_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with Memory(path=spelling.format(folder=tmp_path), embedder="none") as client:
        client.add("tea", user_id="ada")
    assert [file.name for file in tmp_path.iterdir()] == ["memory.db"]


def test_what_names_no_file_is_refused_by_name() -> None:
    urls = ("postgresql://u:secret@h/db", "https://h/x.db", "sqlite://host/x.db", "sqlite:///x.db?mode=ro")
    for wrong in (*urls, "file:x.db", ""):
        with pytest.raises(ValueError, match="path") as caught:
            Memory(path=wrong)
        assert "secret" not in str(caught.value)


async def test_a_file_of_the_first_schema_is_upgraded_and_keeps_what_it_held(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_SCHEMA.read_text())
        names = dict(db.execute("SELECT content, id FROM memories"))
        db.execute("UPDATE audit SET timestamp = (SELECT timestamp FROM audit WHERE number = 8) WHERE number = 9")
        db.commit()
        recorded = db.execute(
            "SELECT action, memory_id FROM audit WHERE user_id = 'ada' ORDER BY number DESC"
        ).fetchall()
    async with memory(path, audit_reads=False) as client:
        assert [(entry.action, entry.memory_id) for entry in await client.audit("ada")] == recorded

        async def current(year: int) -> set[str]:
            return {r.content async for r in client.iter("ada", as_of=datetime(year, 1, 1, tzinfo=UTC))}

        tea = await client.get(names["likes tea"], user_id="ada")
        assert len({record.version async for record in client.iter("ada")}) == 7
        assert await current(2030) == {"likes tea", "lives in Bonn", "lives in Kiel", "works at Acme"}
        assert await current(2040) == {"likes tea", "lives in Bonn", "lives in Kiel", "works at Initech"}
        assert await current(2020) == {"likes tea", "lives in Ulm", "works at Acme", "has a cat"}
        await client.update(names["lives in Kiel"], supersedes=None)
        assert (await client.get(names["lives in Ulm"])).superseded_by == names["lives in Bonn"]
        assert [hit.memory.content for hit in await client.search("tea", "ada")] == ["likes tea"]
        given: dict[str, Any] = {"scope": "drinks/hot", "tags": ["t", "u"], "confidence": 0.5, "x_app": {"k": [1]}}
        given |= {"source": {"app": "notes"}, "idempotency_key": "once"}
        assert await client.add("likes tea", user_id="ada", **given) == tea
        assert (tea.scope, tea.tags, tea.confidence) == ("drinks/hot", ["t", "u"], 0.5)
    assert rows(path, "SELECT version FROM store") == [(SCHEMA_VERSION,)]
    check_consistent(path)


def test_a_file_of_a_newer_schema_is_refused_by_name_and_left_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE store (only_row INTEGER PRIMARY KEY, version INTEGER NOT NULL, other TEXT)")
        db.execute("INSERT INTO store VALUES (1, ?, '')", (SCHEMA_VERSION + 1,))
        db.execute("CREATE TABLE memories (number INTEGER PRIMARY KEY)")
    before = rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    message = open_fails(path).message
    assert f"schema {SCHEMA_VERSION + 1}" in message
    assert "upgrade openproto" in message
    assert rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before


@pytest.mark.parametrize(("chosen", "level"), [("full", 2), ("normal", 1)])
async def test_the_durability_that_was_chosen_is_that_of_the_connections(path: Path, chosen: Any, level: int) -> None:
    async with memory(path, synchronous=chosen) as client:
        database = database_of(client)
        assert await database.write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (level,)
        assert await database.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    for wrong in ("off", "FULL", ""):
        with pytest.raises(ValueError, match="synchronous"):
            memory(path, synchronous=wrong)


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
    assert rows(path, "SELECT count(*) FROM memories WHERE superseded_by IS NOT NULL") == [(count - 1,)]
    async with memory(path) as client:
        for id in ids:
            await client.get(id, user_id="ada")
        await client.add("life goes on", user_id="ada")
