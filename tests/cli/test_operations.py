"""Keys, versions, scopes, users, tags, exported lines that are restored, and what asks before it destroys."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commandline import Run


def test_put_get_and_delete_by_key_and_version(cli: Run) -> None:
    first = cli("put", "green tea", "--key", "drink", "--if-version", "absent", "--json").json
    assert cli("put", "tea", "--key", "drink", "--if-version", "absent").status == 6
    assert cli("put", "black tea", "--key", "drink", "--if-version", first["version"]).out == f"{first['id']}\n"
    now = cli("get", "--key", "drink", "--json").json
    assert (now["content"], now["id"]) == ("black tea", first["id"])
    versioned = ("--if-version", now["version"])
    assert cli("update", now["id"], "--source", "app=a", "-x", "x-n=1", *versioned).status == 0
    assert cli("update", now["id"], "--content", "x", *versioned).status == 6
    assert cli("delete", now["id"], *versioned).status == 6
    changed = cli("get", now["id"], "--json").json
    assert (changed["source"], changed["x-n"]) == ({"app": "a"}, 1)
    assert cli("delete", now["id"], "--if-version", changed["version"]).status == 0
    assert cli("add", "x", "--key", "k").status == 0
    assert cli("add", "y", "--key", "k").status == 6
    for unclear in (["get", "m1", "--key", "k"], ["get"], ["delete", "--all", "--if-version", "v"]):
        assert cli(*unclear).status == 2


def test_scopes_users_tags_and_every_page(cli: Run) -> None:
    for user, scope, tags in (("ada", "food/tea", "ab"), ("ada", "food/cake", "a"), ("bob", "x", "")):
        named = [word for tag in tags for word in ("--tag", tag)]
        assert cli("add", f"in {scope}", "--scope", scope, "--user", user, *named).status == 0
    assert cli("scopes", "--depth", "1").out == "food\t2\n"
    first = cli("users", "--limit", "1")
    assert (first.out, first.err.startswith("there are more: --cursor ")) == ("ada\n", True)
    assert cli("users", "--json").out == '{"items": ["ada", "bob"]}\n'
    both = cli("list", "--tag", "a", "--tag", "b").out
    assert [line.split("\t")[2] for line in both.splitlines()] == ["food/tea"]
    assert len(cli("list", "--all").out.splitlines()) == 2
    assert cli("list", "--all", "--cursor", "c").status == 2
    assert cli("context", "nothing", "--relevant-only").out == ""


def test_restore_writes_what_export_wrote(cli: Run, tmp_path: Path) -> None:
    cli("add", "one", "--scope", "a", "--tag", "t")
    cli("add", "two")
    file, there = tmp_path / "backup.jsonl", ("--path", str(tmp_path / "there.db"))
    assert cli("export", str(file)).status == 0
    items = cli("list", "--json").json["items"]
    assert cli("restore", str(file), *there).out == "2 memories restored\n"
    assert cli("restore", str(file), *there).out == "0 memories restored, 2 there already\n"
    assert [{**item, "version": ""} for item in cli("list", "--json", *there).json["items"]] == [
        {**item, "version": ""} for item in items
    ]
    foreign = f'{{"id": "{items[0]["id"]}", "content": "one", "user_id": "eve", "created_at": "2026-01-01T00:00:00Z"}}'
    with file.open("a") as more:
        more.write(f'{foreign}\n{{"id": 1}}\n')
    ended = cli("restore", str(file), "--json", *there)
    assert (ended.status, ended.json) == (1, {"restored": 0, "exists": 2, "deleted": 0, "refused": 2})
    assert "line 3: another user" in ended.err
    assert "line 4: is not an exported memory" in ended.err


def test_what_destroys_asks_first_and_options_stand_where_they_belong(
    cli: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    for destroying in (["delete", "--all"], ["reindex", "--embedder", "none"]):
        ended = cli(*destroying)
        assert (ended.status, "--yes" in ended.err) == (2, True)

    def offered(*command: str) -> set[str]:
        return {word for word in cli(*command, "--help").out.split() if word.startswith("--")}

    assert not {"--provider", "--user", "--timeout"} & (offered("providers") | offered("keys", "list"))
    assert "--user" not in offered("capabilities") | offered("doctor") | offered("reindex") | offered("users")
    for command in ("delete", "list", "serve", "providers"):
        assert "<bool>" not in cli(command, "--help").out
