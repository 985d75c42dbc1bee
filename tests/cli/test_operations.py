"""Commands beyond the verbs, run in one process over a provider that has them all."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from shelf import Shelf

from openproto.cli import call as calls
from openproto.cli import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on one shelf and return its status and what it printed."""
    shelf = Shelf()
    monkeypatch.setattr(calls, "make_provider", lambda name, options: shelf)
    monkeypatch.setenv("OPENPROTO_USER", "ada")

    def go(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return go


def test_put_get_and_delete_by_key_and_version(run: Run) -> None:
    first = json.loads(run("put", "green tea", "--key", "drink", "--if-version", "absent", "--json")[1])
    assert run("put", "tea", "--key", "drink", "--if-version", "absent")[0] == 6
    assert run("put", "black tea", "--key", "drink", "--if-version", first["version"])[:2] == (0, first["id"] + "\n")
    now = json.loads(run("get", "--key", "drink", "--json")[1])
    assert (now["content"], now["id"]) == ("black tea", first["id"])
    assert run("update", now["id"], "--source", "app=a", "-x", "x-n=1", "--if-version", now["version"])[0] == 0
    assert run("update", now["id"], "--content", "x", "--if-version", now["version"])[0] == 6
    assert run("delete", now["id"], "--if-version", now["version"])[0] == 6
    changed = json.loads(run("get", now["id"], "--json")[1])
    assert (changed["source"], changed["x-n"]) == ({"app": "a"}, 1)
    assert run("delete", now["id"], "--if-version", changed["version"])[0] == 0
    assert run("add", "x", "--key", "k")[0] == 0
    assert run("add", "y", "--key", "k")[0] == 6
    assert run("get", "m1", "--key", "k")[0] == run("get")[0] == run("delete", "--all", "--if-version", "v")[0] == 2


def test_scopes_users_tags_and_every_page(run: Run) -> None:
    for user, scope, tags in (("ada", "food/tea", "ab"), ("ada", "food/cake", "a"), ("bob", "x", "")):
        named = [word for tag in tags for word in ("--tag", tag)]
        assert run("add", f"in {scope}", "--scope", scope, "--user", user, *named)[0] == 0
    assert run("scopes", "--depth", "1")[1] == "food\t2\n"
    assert run("users", "--limit", "1")[1:] == ("ada\n", "there are more: --cursor ada\n")
    assert run("users", "--json")[1] == '{"items": ["ada", "bob"]}\n'
    both = run("list", "--tag", "a", "--tag", "b")[1]
    assert [line.split("\t")[2] for line in both.splitlines()] == ["food/tea"]
    assert len(run("list", "--all")[1].splitlines()) == 2
    assert run("list", "--all", "--cursor", "c")[0] == 2
    assert run("context", "nothing", "--relevant-only")[1] == ""


def test_restore_writes_what_export_wrote(run: Run, tmp_path: Path) -> None:
    run("add", "one", "--scope", "a", "--tag", "t")
    run("add", "two")
    file = tmp_path / "backup.jsonl"
    assert run("export", str(file))[0] == 0
    before = run("list", "--json")[1]
    run("delete", "--all", "--yes")
    assert run("restore", str(file))[:2] == (0, "2 memories restored\n")
    assert run("restore", str(file))[:2] == (0, "0 memories restored, 2 there already\n")
    assert json.loads(run("list", "--json")[1]) == json.loads(before)
    with file.open("a") as more:
        more.write(
            '{"id": "m1", "content": "one", "user_id": "eve", "created_at": "2026-01-01T00:00:00Z"}\n{"id": 1}\n'
        )
    status, out, said = run("restore", str(file), "--json")
    assert (status, json.loads(out)) == (1, {"restored": 0, "exists": 2, "deleted": 0, "refused": 2})
    assert "line 3: another user" in said
    assert "line 4: is not an exported memory" in said


def test_what_destroys_asks_first_and_options_stand_where_they_mean_something(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    for destroying in (["delete", "--all"], ["reindex", "--embedder", "none"]):
        status, _, said = run(*destroying)
        assert (status, "--yes" in said) == (2, True)

    def offered(*command: str) -> set[str]:
        return {word for word in run(*command, "--help")[1].split() if word.startswith("--")}

    assert not {"--provider", "--user", "--timeout"} & (offered("providers") | offered("keys", "list"))
    assert "--user" not in offered("capabilities") | offered("doctor") | offered("reindex") | offered("users")
    for command in ("delete", "list", "serve", "providers"):
        assert "<bool>" not in run(command, "--help")[1]
        assert "[[" not in run(command, "--help")[1]
