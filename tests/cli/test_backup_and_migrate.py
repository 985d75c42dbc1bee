"""`backup`, `restore`, and `migrate` as they are typed: the documented ones, interrupted ones, and what is refused."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import signal
import sqlite3
import stat
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commandline import Run, contents, interrupt

DOCUMENTATION = (Path(__file__).parents[2] / "docs/backup.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ openproto (.*)$", DOCUMENTATION, re.MULTILINE)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def filled(cli: Run, tmp_path: Path) -> Path:
    cli("add", "tea", "--key", "k")
    cli("add", "rain", "--user", "bob")
    return tmp_path


def test_the_documented_commands_do_what_is_said(cli: Run, filled: Path) -> None:
    ended = [cli(*shlex.split(command)) for command in COMMANDS]
    assert [each.status for each in ended] == [0, 0, 0, 0]
    whole = "memories.openproto is whole: 2 memories of 2 users, 0 idempotency keys, 2 audit entries"
    assert ended[1].out.startswith(whole)
    assert [ended[n].out for n in (0, 2, 3)] == [
        "2 memories of 2 users in memories.openproto\n",
        "2 memories restored\n",
        "0 memories restored, 2 there already\n",
    ]
    assert stat.S_IMODE((filled / "memories.openproto").stat().st_mode) == 0o600
    here, there = (cli("get", "--key", "k", "--json", *path).json for path in ((), ("--path", "elsewhere.db")))
    assert {**here, "version": ""} == {**there, "version": ""}
    assert cli("backup", "memories.openproto").status == 2


def test_what_was_deleted_is_left_out_and_said(cli: Run, filled: Path) -> None:
    cli("backup", "a.openproto", "--user", "ada")
    cli("delete", "--all", "--yes")
    left_out = cli("restore", "a.openproto")
    assert (left_out.status, left_out.out) == (1, "0 memories restored, 1 left out, for they were deleted here\n")
    assert "--include-deleted" in left_out.err
    told = cli("restore", "a.openproto", "--include-deleted", "--json").json
    assert told == {"restored": 1, "exists": 0, "deleted": 0, "refused": 0}
    assert cli("restore", "a.openproto", "--user", "bob").out == "0 memories restored\n"


def test_an_encrypted_package_needs_its_passphrase(cli: Run, filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("backup", "a.openproto", "--encrypt").status == 2  # no terminal to ask on
    monkeypatch.setenv("OPENPROTO_PASSPHRASE", "right")
    assert cli("backup", "a.openproto", "--encrypt").status == 0
    assert b"tea" not in (filled / "a.openproto").read_bytes()
    assert cli("restore", "a.openproto", "--path", "b.db").out == "2 memories restored\n"
    monkeypatch.setenv("OPENPROTO_PASSPHRASE", "wrong")
    assert cli("backup", "a.openproto", "--verify").ended(1, "passphrase")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.scrypt", None)
    assert cli("backup", "b.openproto", "--encrypt").ended(7, "pip install 'openproto[encryption]'")
    assert sorted(path.name for path in filled.glob("*.openproto*")) == ["a.openproto"]


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_restore_goes_on_and_no_backup_stays(cli: Run, filled: Path, signal_: signal.Signals) -> None:
    (filled / "lines").write_text("".join(f'{{"content": "m{n:05}", "user_id": "u{n % 50}"}}\n' for n in range(2000)))
    assert (cli("import", "lines").status, cli("backup", "a.openproto").status) == (0, 0)
    target = filled / "b.db"

    def begun() -> bool:
        with suppress(sqlite3.OperationalError):
            return target.exists() and bool(contents(target))
        return False

    ended = interrupt(["restore", "a.openproto", "--path", str(target)], signal_, begun)
    assert signal_ is signal.SIGKILL or "the same command goes on from there" in ended.err
    assert 0 < len(contents(target)) < 2002
    assert cli("restore", "a.openproto", "--path", str(target)).status == 0
    assert sorted(contents(target)) == sorted(contents(filled / "memory.db"))
    ended = interrupt(["backup", "c.openproto"], signal_, (filled / "c.openproto.tmp").exists)
    assert not (filled / "c.openproto").exists()
    if signal_ is signal.SIGINT:
        assert "no file was written" in ended.err
        assert not (filled / "c.openproto.tmp").exists()


def test_a_dry_run_counts_and_writes_nothing(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("add", "one", "-s", "a/b")
    cli("add", "one more")
    cli("add", "two", "-u", "bob")
    cli("add", "kept", "--path", "there.db")
    monkeypatch.setenv("OPENPROTO_FROM_PATH", str(tmp_path / "memory.db"))
    command = ("migrate", "--from", "sqlite", "--to", "sqlite", "--to-option", "path=there.db")
    told = cli(*command, "--dry-run", "--json")
    by_user = {"ada": {"": 1, "a/b": 1}, "bob": {"": 1}}
    assert told.json["survey"] == {"users": 2, "records": 3, "by_user": by_user, "cannot_keep": {}}
    assert len(contents(tmp_path / "there.db")) == 1
    assert list(tmp_path.glob("openproto-migration*")) == []
    moved = cli(*command, "--user", "bob")
    assert moved.status == 0
    assert "equal in every field: 1" in moved.out
    assert cli("users", "--path", "there.db").out.split() == ["ada", "bob"]
    assert json.loads((tmp_path / "openproto-migration.json").read_text())["brought"] == 1


@pytest.mark.usefixtures("faulty")
def test_what_cannot_be_done_is_refused_before_anything_is_written(cli: Run, tmp_path: Path) -> None:
    cli("add", "one")
    here = ("migrate", "--from", "sqlite", "--from-option", "path=memory.db")
    assert cli(*here, "--to", "sqlite", "--to-option", f"path={tmp_path / 'memory.db'}").ended(2, "same store")
    assert cli(*here).status == 2
    assert cli(*here, "--to", "nothing").status == 2
    assert cli("migrate", "--from", "faulty", "--to", "sqlite", "--to-option", "path=there.db").ended(2, "--users-file")
    lost = cli(*here, "--to", "faulty")
    assert (lost.status, "created_at of 1 memory" in lost.out, "--lossy" in lost.err) == (6, True, True)
    assert cli("migrate", "--undo", "none.json").status == 2
    for content, why in ((b"\n", "names no user"), (b"\xff", "UTF-8")):
        (tmp_path / "ids").write_bytes(content)
        assert cli(*here, "--to", "sqlite", "--to-option", "path=there.db", "--users-file", "ids").ended(2, why)
    assert cli(*here[:-1], "path=mistyped.db", "--to", "sqlite", "--to-option", "path=there.db", "--dry-run").ended(
        0, "nobody has memories", "mistyped.db"
    )
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == []


@pytest.mark.usefixtures("faulty")
def test_a_report_belongs_to_one_migration_and_keeps_no_secret(cli: Run, tmp_path: Path) -> None:
    cli("add", "one")
    (tmp_path / "ids").write_text("ada\n\n")
    here = ("migrate", "--from", "sqlite", "--from-option", "path=memory.db", "--users-file", "ids")
    assert cli(*here, "--to", "sqlite", "--to-option", "path=there.db").status == 0
    assert cli(*here, "--to", "sqlite", "--to-option", "path=elsewhere.db").ended(2, "another migration")
    with (tmp_path / "openproto-migration.json.journal").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        busy = cli(*here, "--to", "sqlite", "--to-option", "path=there.db")
    assert (busy.status, "is writing this report now" in busy.err) == (2, True)
    report = tmp_path / "secret.json"
    kept = cli(*here, "--to", "faulty", "--to-option", "api_key=hunter22", "--lossy", "--report", str(report))
    assert kept.status != 0
    assert "hunter22" not in kept.err + kept.out + (tmp_path / "secret.json.journal").read_text()
    assert cli("migrate", "--undo", str(report)).ended(2, "api_key")
    wrong = cli("migrate", "--undo", "openproto-migration.json", "--to-option", "path=memory.db")
    assert (wrong.status, len(contents(tmp_path / "memory.db"))) == (2, 1)
    undone = cli("migrate", "--undo", "openproto-migration.json")
    assert (undone.status, undone.out) == (0, "1 memory removed\n")
    assert len(contents(tmp_path / "there.db")) == 0
