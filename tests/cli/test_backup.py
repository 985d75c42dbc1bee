"""`backup` and `restore` as commands: the documented ones, interrupted ones, and encrypted files."""

from __future__ import annotations

import re
import shlex
import signal
import sqlite3
import stat
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from commandline import Run, interrupt

DOCUMENTATION = (Path(__file__).parents[2] / "docs/backup.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ openproto (.*)$", DOCUMENTATION, re.MULTILINE)


@pytest.fixture
def filled(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of two users, and a folder to write files in."""
    monkeypatch.chdir(tmp_path)
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
    wrong = cli("backup", "a.openproto", "--verify")
    assert (wrong.status, "passphrase" in wrong.err) == (1, True)
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.kdf.scrypt", None)
    missing = cli("backup", "b.openproto", "--encrypt")
    assert (missing.status, "pip install 'openproto[encryption]'" in missing.err) == (7, True)
    assert sorted(path.name for path in filled.glob("*.openproto*")) == ["a.openproto"]


def rows(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [content for (content,) in db.execute("SELECT content FROM memories ORDER BY content")]


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_restore_goes_on_and_a_backup_leaves_nothing(
    cli: Run, filled: Path, signal_: signal.Signals
) -> None:
    (filled / "lines").write_text("".join(f'{{"content": "m{n:05}", "user_id": "u{n % 50}"}}\n' for n in range(2000)))
    assert (cli("import", "lines").status, cli("backup", "a.openproto").status) == (0, 0)
    target = filled / "b.db"

    def begun() -> bool:
        with suppress(sqlite3.OperationalError):
            return target.exists() and bool(rows(target))
        return False

    ended = interrupt(["restore", "a.openproto", "--path", str(target)], signal_, begun)
    assert signal_ is signal.SIGKILL or "the same command goes on from there" in ended.err
    assert 0 < len(rows(target)) < 2002
    assert cli("restore", "a.openproto", "--path", str(target)).status == 0
    assert rows(target) == rows(filled / "memory.db")
    ended = interrupt(["backup", "c.openproto"], signal_, (filled / "c.openproto.tmp").exists)
    assert not (filled / "c.openproto").exists()
    if signal_ is signal.SIGINT:
        assert "no file was written" in ended.err
        assert not (filled / "c.openproto.tmp").exists()
