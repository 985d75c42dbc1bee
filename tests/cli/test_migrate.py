"""`migrate` as it is typed: what is asked, refused, shown, and kept out of sight."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commandline import Run

pytestmark = pytest.mark.usefixtures("faulty")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("SELECT count(*) FROM memories").fetchone()[0])


def test_a_dry_run_counts_and_writes_nothing(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("add", "one", "-s", "a/b")
    cli("add", "two", "-u", "bob")
    cli("add", "kept", "--path", "there.db")
    monkeypatch.setenv("OPENPROTO_FROM_PATH", str(tmp_path / "memory.db"))
    command = ("migrate", "--from", "sqlite", "--to", "sqlite", "--to-option", "path=there.db")
    told = cli(*command, "--dry-run", "--json")
    by_user = {"ada": {"a/b": 1}, "bob": {"": 1}}
    assert told.json["survey"] == {"users": 2, "records": 2, "by_user": by_user, "cannot_keep": {}}
    assert rows(tmp_path / "there.db") == 1
    assert list(tmp_path.glob("openproto-migration*")) == []
    moved = cli(*command, "--user", "bob")
    assert moved.status == 0
    assert "equal in every field: 1" in moved.out
    assert cli("users", "--path", "there.db").out.split() == ["ada", "bob"]
    assert json.loads((tmp_path / "openproto-migration.json").read_text())["brought"] == 1


def test_what_cannot_be_done_is_refused_before_anything_is_written(cli: Run, tmp_path: Path) -> None:
    cli("add", "one")
    here = ("migrate", "--from", "sqlite", "--from-option", "path=memory.db")
    same = cli(*here, "--to", "sqlite", "--to-option", f"path={tmp_path / 'memory.db'}")
    assert (same.status, "same store" in same.err) == (2, True)
    assert cli(*here).status == 2
    assert cli(*here, "--to", "nothing").status == 2
    silent = cli("migrate", "--from", "faulty", "--to", "sqlite", "--to-option", "path=there.db")
    assert (silent.status, "--users-file" in silent.err) == (2, True)
    lost = cli(*here, "--to", "faulty")
    assert (lost.status, "created_at of 1 memory" in lost.out, "--lossy" in lost.err) == (6, True, True)
    assert cli("migrate", "--undo", "none.json").status == 2
    assert sorted(path.name for path in tmp_path.glob("*.json*")) == []


def test_a_report_belongs_to_one_migration_and_keeps_no_secret(cli: Run, tmp_path: Path) -> None:
    cli("add", "one")
    (tmp_path / "ids").write_text("ada\n\n")
    here = ("migrate", "--from", "sqlite", "--from-option", "path=memory.db", "--users-file", "ids")
    assert cli(*here, "--to", "sqlite", "--to-option", "path=there.db").status == 0
    other = cli(*here, "--to", "sqlite", "--to-option", "path=elsewhere.db")
    assert (other.status, "another migration" in other.err) == (2, True)
    report = tmp_path / "secret.json"
    kept = cli(*here, "--to", "faulty", "--to-option", "api_key=hunter22", "--lossy", "--report", str(report))
    assert kept.status != 0
    assert "hunter22" not in kept.err + kept.out + (tmp_path / "secret.json.journal").read_text()
    missing = cli("migrate", "--undo", str(report))
    assert (missing.status, "api_key" in missing.err) == (2, True)
    wrong = cli("migrate", "--undo", "openproto-migration.json", "--to-option", "path=memory.db")
    assert (wrong.status, rows(tmp_path / "memory.db")) == (2, 1)
    undone = cli("migrate", "--undo", "openproto-migration.json")
    assert (undone.status, undone.out) == (0, "1 memory removed\n")
    assert rows(tmp_path / "there.db") == 0
