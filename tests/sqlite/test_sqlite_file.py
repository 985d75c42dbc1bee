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
    told = run_python(DEFAULT, env={"XDG_DATA_HOME": str(tmp_path), "HOME": "/nowhere"})
    assert told.returncode == 0, told.stderr
    assert check_consistent(tmp_path / "openproto" / "memory.db") == 1


async def test_the_folder_of_the_file_is_made(tmp_path: Path) -> None:
    async with memory(tmp_path / "a" / "b" / "memory.db") as client:
        await client.add("tea", user_id="ada")
        assert (tmp_path / "a" / "b" / "memory.db").is_file()


@pytest.mark.parametrize("kind", [str, Path])
async def test_a_path_may_be_text_or_a_path(path: Path, kind: Any) -> None:
    async with AsyncMemory("sqlite", path=kind(path), embedder="none") as client:
        await client.add("tea", user_id="ada")
    assert check_consistent(path) == 1


async def test_only_the_user_may_read_the_file_and_its_companions(path: Path) -> None:
    umask = os.umask(0)
    try:
        async with memory(path) as client:
            await client.add("tea", user_id="ada")
            found = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert found == {"memory.db": 0o600, "memory.db-wal": 0o600, "memory.db-shm": 0o600}


async def test_one_provider_object_can_serve_one_client_after_another(path: Path) -> None:
    first = memory(path)
    async with first:
        await first.add("tea", user_id="ada")
    async with AsyncMemory(first._session.provider) as second:
        assert [found.content async for found in second.iter("ada")] == ["tea"]


async def test_a_closed_client_leaves_no_companions(path: Path) -> None:
    async with memory(path) as client:
        await client.add("tea", user_id="ada")
        await client.search("tea", "ada")
    assert [file.name for file in path.parent.iterdir()] == ["memory.db"]


async def test_a_closed_client_leaves_no_file_open(path: Path) -> None:
    async with memory(path) as client:
        await client.search("tea", "ada")
    held = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_link(fd)]
    assert [name for name in held if name.startswith(str(path))] == []


def _is_link(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


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


async def test_a_file_that_is_no_database_is_left_alone(diary: Path) -> None:
    assert "not an SQLite database" in (await open_fails(diary)).message
    assert contents(diary) == DIARY


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "path" in (await open_fails(tmp_path)).message


async def test_a_path_below_a_file_is_named(diary: Path) -> None:
    assert str(diary / "memory.db") in (await open_fails(diary / "memory.db")).message


async def test_a_damaged_file_is_a_typed_error(path: Path) -> None:
    async with memory(path) as client:
        for n in range(50):
            await client.add(f"tea {n} " * 20, user_id="ada")
    damage(path)
    with pytest.raises(ProviderError, match="damaged"):
        async with memory(path) as client:
            await client.list("ada")


def damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    file.write_bytes(data)


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
        told = run_python(READ_ONLY, path)
        Path(folder).chmod(0o755)
        left = [file.name for file in Path(folder).iterdir()]
    if exists:
        assert told.stdout.startswith("['tea']\nprovider_error "), told.stderr
        assert "may only be read (writes are refused" in told.stdout
        assert open_folder or left == ["memory.db"]
    elif open_folder:
        assert told.stdout.startswith("[]\nstored"), told.stderr
    else:
        assert told.stdout.startswith("provider_error "), told.stderr
        assert "Permission denied" in told.stdout
        assert left == []


async def test_a_read_makes_no_store(tmp_path: Path) -> None:
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


async def test_a_store_that_another_made_meanwhile_is_read(path: Path) -> None:
    async with memory(path) as reader:
        assert (await reader.list("ada")).items == []
        async with memory(path) as writer:
            await writer.add("tea", user_id="ada")
        assert len((await reader.list("ada")).items) == 1


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
    told = run_python(program, tmp_path, env=env)
    assert told.returncode == 0, told.stderr
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


async def test_a_file_of_a_newer_schema_is_refused_in_words(path: Path) -> None:
    async with memory(path) as client:
        await client.add("tea", user_id="ada")
    rows(path, "UPDATE store SET version = ?", SCHEMA_VERSION + 1)
    message = (await open_fails(path)).message
    assert f"schema {SCHEMA_VERSION + 1}" in message
    assert "upgrade openproto" in message


async def test_a_file_of_a_newer_schema_is_left_as_it_was(path: Path) -> None:
    async with memory(path) as client:
        await client.add("tea", user_id="ada")
    rows(path, "UPDATE store SET version = ?", SCHEMA_VERSION + 1)
    rows(path, "DROP TABLE keys")  # as a newer schema might
    before = rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name")
    await open_fails(path)
    assert rows(path, "SELECT name, sql FROM sqlite_schema ORDER BY name") == before


async def test_a_newer_schema_is_told_even_when_its_tables_have_changed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE store (only_row INTEGER PRIMARY KEY, version INTEGER NOT NULL, other TEXT)")
        db.execute("INSERT INTO store VALUES (1, ?, '')", (SCHEMA_VERSION + 1,))
        db.execute("CREATE TABLE memories (number INTEGER PRIMARY KEY)")
    assert "upgrade openproto" in (await open_fails(path)).message


async def test_an_error_names_the_provider(diary: Path) -> None:
    assert (await open_fails(diary)).provider == "sqlite"


async def test_a_failed_opening_can_be_repeated_when_its_cause_is_gone(diary: Path) -> None:
    client = memory(diary)
    with pytest.raises(ProviderError):
        await client.list("ada")
    os.truncate(diary, 0)
    assert (await client.list("ada")).items == []
    await client.aclose()


@pytest.mark.parametrize("wrong", ["off", "FULL", ""])
def test_an_unknown_durability_is_refused_when_the_client_is_made(path: Path, wrong: str) -> None:
    with pytest.raises(ValueError, match="synchronous"):
        memory(path, synchronous=wrong)


@pytest.mark.parametrize(("chosen", "level"), [("full", 2), ("normal", 1)])
async def test_the_durability_that_was_chosen_is_that_of_the_connections(path: Path, chosen: Any, level: int) -> None:
    async with memory(path, synchronous=chosen) as client:
        database = client._session.provider._database  # type: ignore[attr-defined]
        assert await database.write(lambda db: db.execute("PRAGMA synchronous").fetchone()) == (level,)
        assert await database.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
