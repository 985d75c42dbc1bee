"""The file of the sqlite provider: where it is, who may read it, and what happens when it cannot be had."""

from __future__ import annotations

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
from sqlite_tools import check_consistent, memory, rows

from openproto import AsyncMemory, Memory, NotFoundError, ProviderError

OLD_SCHEMA = Path(__file__).with_name("schema_1.sql")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memory.db"


DEFAULT = """
import os
os.umask(0o022)
import openproto
with openproto.Memory(embedder="none") as memory:
    memory.add("tea", user_id="ada")
"""


@pytest.mark.promise(80)
def test_without_arguments_the_file_is_in_the_users_data_directory(run_python: Any, tmp_path: Path) -> None:
    done = run_python(DEFAULT, env={"XDG_DATA_HOME": str(tmp_path), "HOME": "/nowhere"})
    assert done.returncode == 0, done.stderr
    assert check_consistent(tmp_path / "openproto" / "memory.db") == 1


@pytest.mark.parametrize("kind", [str, Path])
async def test_the_file_is_private_and_a_closed_client_leaves_it_alone(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "a" / "b" / "memory.db"
    umask = os.umask(0)
    try:
        async with AsyncMemory("sqlite", path=kind(path), embedder="none") as client:
            await client.add("tea", user_id="ada")
            await client.search("tea", "ada")
            found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert found == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]
    assert not [file for file in open_files() if file.startswith(str(path))]


def open_files() -> list[str]:
    """Return the names of the files that this process has open."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link)]


async def open_fails(path: Path, **options: Any) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        async with memory(path, **options):
            pytest.fail("the file was opened")
    assert not caught.value.retryable
    return caught.value


DIARY = "Dear diary,\n" * 100


@pytest.fixture
def diary(path: Path) -> Path:
    """A file that is no database."""
    path.write_text(DIARY)
    return path


def contents(file: Path) -> str:
    return file.read_text()


async def test_what_is_not_a_database_is_named_and_left_alone(diary: Path, tmp_path: Path) -> None:
    error = await open_fails(diary)
    assert (error.provider, "not an SQLite database" in error.message) == ("sqlite", True)
    assert "path" in (await open_fails(tmp_path)).message
    assert str(diary / "memory.db") in (await open_fails(diary / "memory.db")).message
    assert contents(diary) == DIARY


async def test_a_damaged_file_is_a_typed_error(path: Path) -> None:
    async with memory(path) as client:
        for n in range(50):
            await client.add(f"tea {n} " * 20, user_id="ada")
    damage(path)
    with pytest.raises(ProviderError, match="damaged"):
        async with memory(path) as client:
            await client.list("ada")


def damage(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:4096] + b"\xa5" * (file.stat().st_size - 4096))


READ_ONLY = """
import os, sys, tempfile
import openproto
with tempfile.TemporaryDirectory() as folder, openproto.Memory(path=folder + "/x.db", embedder="none") as memory:
    memory.list("ada")  # imports whatever a call needs, while this user may still read it
if os.getuid() == 0:
    os.setuid(65534)
try:
    with openproto.Memory(path=sys.argv[1], embedder="none", retries=0) as memory:
        print([record.content for record in memory.list("ada").items], flush=True)
        memory.add("tea", user_id="ada")
    print("stored")
except openproto.ProviderError as error:
    print(error.code, error.message)
"""


@pytest.mark.parametrize("open_folder", [False, True], ids=["a closed folder", "an open folder"])
@pytest.mark.parametrize("exists", [False, True], ids=["a new file", "an old file"])
def test_what_may_only_be_read_is_read_and_a_write_says_why_not(
    run_python: Any, exists: bool, open_folder: bool
) -> None:
    # pytest's own folders are closed to other users, and root may write anywhere: hence this folder and that user.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "memory.db"
        if exists:
            with Memory(path=path, embedder="none") as client:
                client.add("tea", user_id="ada")
            path.chmod(0o444)
        Path(folder).chmod(0o777 if open_folder else 0o555)
        done = run_python(READ_ONLY, path)
        Path(folder).chmod(0o755)
        left = [file.name for file in Path(folder).iterdir()]
    if exists:
        assert done.stdout.startswith("['tea']\nprovider_error "), done.stderr
        assert "may only be read (writes are refused" in done.stdout
        assert open_folder or left == ["memory.db"]
    elif open_folder:
        assert done.stdout.startswith("[]\nstored"), done.stderr
    else:
        assert done.stdout.startswith("provider_error "), done.stderr
        assert "Permission denied" in done.stdout
        assert left == []


async def test_a_read_makes_no_store_and_sees_the_one_that_another_makes(tmp_path: Path) -> None:
    async with memory(tmp_path / "typo" / "memory.db") as client:
        assert (await client.list("ada")).items == await client.search("tea", "ada") == []
        assert (await client.context("tea", "ada")).text == ""
        assert await client.delete_all("ada") == 0
        with pytest.raises(NotFoundError):
            await client.get("m1", user_id="ada")
        with pytest.raises(NotFoundError):
            await client.update("m1", content="tea")
        assert (await client.audit("ada")) == []
        assert os.listdir(tmp_path) == []
        async with memory(tmp_path / "typo" / "memory.db") as writer:
            await writer.add("tea", user_id="ada")
        assert len((await client.list("ada")).items) == 1


@pytest.mark.parametrize("fate", ["deleted", "moved", "replaced"])
async def test_a_file_that_goes_underneath_is_noticed_before_anything_is_acknowledged(path: Path, fate: str) -> None:
    async with memory(path) as client:
        record = await client.add("tea", user_id="ada")
        if fate == "replaced":
            async with memory(path.with_name("other.db")) as other:
                await other.add("other", user_id="ada")
            os.replace(path.with_name("other.db"), path)
        elif fate == "moved":
            os.rename(path, path.with_name("moved.db"))
        else:
            os.unlink(path)
        for call in (
            client.add("milk", user_id="ada"),
            client.update(record.id, content="milk"),
            client.get(record.id),
            client.list("ada"),
            client.search("tea", "ada"),
        ):
            with pytest.raises(ProviderError, match="moved, deleted, or replaced"):
                await call
        assert ("memory.db" in os.listdir(path.parent)) == (fate == "replaced")


@pytest.mark.parametrize("spelling", ["~/memory.db", "sqlite:///memory.db", "sqlite:///{folder}/memory.db"])
def test_a_path_means_what_people_mean(run_python: Any, tmp_path: Path, spelling: str) -> None:
    program = "import os, sys; os.chdir(sys.argv[1]); import openproto\n" + (
        "with openproto.Memory.from_env() as memory: memory.add('tea', user_id='ada')"
    )
    env = {"HOME": str(tmp_path), "OPENPROTO_PATH": spelling.format(folder=tmp_path), "OPENPROTO_EMBEDDER": "none"}
    done = run_python(program, tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["memory.db"]


@pytest.mark.parametrize(
    "wrong",
    ["postgresql://u:secret@h/db", "https://h/x.db", "file:x.db", "sqlite://host/x.db", "sqlite:///x.db?mode=ro", ""],
)
def test_what_names_no_file_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(ValueError, match="path") as caught:
        Memory(path=wrong)
    assert "secret" not in str(caught.value)


async def test_a_file_of_the_first_schema_is_upgraded_and_keeps_what_it_held(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD_SCHEMA.read_text())
        names = dict(db.execute("SELECT content, id FROM memories"))
    async with memory(path, audit_reads=False) as client:
        tea = await client.get(names["likes tea"], user_id="ada")
        assert (tea.scope, tea.tags, tea.confidence, tea.extensions) == (
            "drinks/hot",
            ["t", "u"],
            0.5,
            {"x-app": {"k": [1]}},
        )
        assert len({record.version async for record in client.iter("ada")}) == 7
        now = {r.content async for r in client.iter("ada", as_of=datetime.now(UTC))}
        assert now == {"likes tea", "lives in Bonn", "lives in Kiel", "works at Acme"}
        later = {r.content async for r in client.iter("ada", as_of=datetime(2040, 1, 1, tzinfo=UTC))}
        assert later == {"likes tea", "lives in Bonn", "lives in Kiel", "works at Initech"}
        long_ago = {r.content async for r in client.iter("ada", as_of=datetime(2020, 1, 1, tzinfo=UTC))}
        assert long_ago == {"likes tea", "lives in Ulm", "works at Acme", "has a cat"}
        await client.update(names["lives in Kiel"], supersedes=None)
        assert (await client.get(names["lives in Ulm"])).superseded_by == names["lives in Bonn"]
        assert [hit.memory.content for hit in await client.search("tea", "ada")] == ["likes tea"]
        again = await client.add(
            "likes tea", user_id="ada", scope="drinks/hot", tags=["t", "u"], source={"app": "notes"}, confidence=0.5,
            x_app={"k": [1]}, idempotency_key="once",
        )  # fmt: skip
        assert again == tea
    assert rows(path, "SELECT version FROM store") == [(SCHEMA_VERSION,)]
    check_consistent(path)


async def test_a_file_of_a_newer_schema_is_refused_by_name_and_left_as_it_was(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE store (only_row INTEGER PRIMARY KEY, version INTEGER NOT NULL, other TEXT)")
        db.execute("INSERT INTO store VALUES (1, ?, '')", (SCHEMA_VERSION + 1,))
        db.execute("CREATE TABLE memories (number INTEGER PRIMARY KEY)")
    before = rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    message = (await open_fails(path)).message
    assert f"schema {SCHEMA_VERSION + 1}" in message
    assert "upgrade openproto" in message
    assert rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before


async def test_a_failed_opening_can_be_repeated_when_its_cause_is_gone(diary: Path) -> None:
    client = memory(diary)
    with pytest.raises(ProviderError):
        await client.list("ada")
    os.truncate(diary, 0)
    assert (await client.list("ada")).items == []
    await client.aclose()


@pytest.mark.parametrize(("chosen", "level"), [("full", 2), ("normal", 1)])
async def test_the_durability_that_was_chosen_is_that_of_the_connections(path: Path, chosen: Any, level: int) -> None:
    async with memory(path, synchronous=chosen) as client:
        database = client._session.provider._database  # type: ignore[attr-defined]
        assert await database.write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (level,)
        assert await database.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    for wrong in ("off", "FULL", ""):
        with pytest.raises(ValueError, match="synchronous"):
            memory(path, synchronous=wrong)
