"""The verbs and what is beyond them: what they store, print into a pipe, print for programs, and ask before."""

from __future__ import annotations

from pathlib import Path

import pytest
from commandline import Run


def test_every_field_goes_in_and_comes_out(cli: Run) -> None:
    old = cli("add", "old").out.strip()
    added = cli(
        *("add", "tea, not coffee", "--json", "-s", "food/drinks", "-t", "a", "-t", "b"),
        *("--source", "app=notes", "--source", "type=explicit", "--source", "ref=n=1"),
        *("--confidence", "0.5", "--valid-from", "2026-01-01T00:00:00+02:00", "--valid-to", "2099-01-01T00:00:00Z"),
        *("--supersedes", old, "-x", 'x-acme={"k": [1, null]}'),
    ).json
    lists = {"tags": ["a", "b"], "supersedes": [old], "x-acme": {"k": [1, None]}}
    texts = {"content": "tea, not coffee", "user_id": "ada", "scope": "food/drinks"}
    assert {**texts, **lists, "source": {"app": "notes", "type": "explicit", "ref": "n=1"}}.items() <= added.items()
    assert added["confidence"] == 0.5
    assert (added["valid_from"], added["valid_to"]) == ("2025-12-31T22:00:00Z", "2099-01-01T00:00:00Z")
    assert cli("get", added["id"], "--json").json == added
    first = cli("add", "x", "--idempotency-key", "k")
    assert first.out == cli("add", "x", "--idempotency-key", "k").out
    assert first.out == cli("add", "X.", "--on-duplicate", "skip").out
    assert cli("get", added["id"], "--user", "bob").status == cli("get", "no-such-id").status == 3
    lines = dict(line.split("\t") for line in cli("capabilities").out.splitlines())
    assert (lines["add"], lines["vector_search"], lines["keyword_search"]) == ("native", "no", "yes")


def test_content_comes_from_stdin_as_it_is_in_any_language_and_locale(run: Run) -> None:
    content = "Ада пьёт чай 🫖\nשלום ✓ नमस्ते "
    id = run("add", "-", stdin=f"{content}\n").out.strip()
    latin = run("get", id, PYTHONIOENCODING="latin-1")
    assert (latin.status, "\\u0410" in latin.out) == (0, True)
    assert run("get", id, "--json", PYTHONIOENCODING="latin-1").json["content"] == content
    assert run("add", "-", stdin=b"\xff\xfe").status == 2
    assert run("add", b"\xff".decode(errors="surrogateescape")).status == 2
    assert "100000" in run("add", "-", stdin="x" * 500_000).err


def test_search_list_and_context_narrow(cli: Run) -> None:
    tea = cli("add", "Ada drinks tea", "-s", "food/drinks", "-t", "hot").out.strip()
    cli("add", "Ada eats bread", "-s", "food")
    cli("add", "then", "--valid-to", "2020-01-01T00:00:00Z", "-s", "past")

    def found(*command: str) -> list[str]:
        answer = cli(*command, "--json").json
        return [item.get("memory", item)["content"] for item in answer.get("results", answer.get("items"))]

    assert set(found("search", "what does Ada drink", "-s", "food")) == {"Ada drinks tea", "Ada eats bread"}
    assert found("search", "Ada", "-t", "hot", "-n", "1") == ["Ada drinks tea"]
    assert found("search", "tea", "--min-score", "1", "-s", "past") == []
    assert found("search", "then") == []
    assert found("search", "then", "--as-of", "2019-01-01T00:00:00Z") == ["then"]
    assert found("list", "--until", "2000-01-01T00:00:00Z") == []
    assert found("list", "--since", "2000-01-01T00:00:00Z", "-s", "past") == ["then"]
    (told,) = cli("search", "tea", "-t", "hot", "--explain", "--json").json["results"]
    fields = cli("search", "tea", "-t", "hot", "--explain").out.rstrip("\n").split("\t")
    assert fields[4:] == ["Ada drinks tea", ",".join(f"{name} {value:.4f}" for name, value in told["parts"].items())]
    block = cli("context", "what does Ada drink", "-b", "12", "-s", "food/*", "--json").json
    assert [cited["memory_id"] for cited in block["citations"]] == [tea]
    text = cli("context", "tea")
    assert (text.out.splitlines()[0], text.err) == (f"Ada drinks tea [{tea}]", "")
    page = cli("list", "-n", "2", "--json").json
    assert found("list", "-n", "2", "--cursor", page["next_cursor"]) == ["Ada drinks tea"]
    assert "--cursor" in cli("list", "-n", "2").err


def test_update_changes_clears_and_leaves_alone(cli: Run) -> None:
    id = cli("add", "x", "-s", "a", "-t", "t", "--confidence", "1").out.strip()
    until = ("--valid-to", "2099-01-01T00:00:00Z")
    record = cli("update", id, "--content", "y", "--clear", "scope", "--clear", "tags", *until, "--json").json
    assert (record["content"], record["confidence"], record["valid_to"]) == ("y", 1.0, until[1])
    assert not {"scope", "tags"} & record.keys()
    assert cli("update", id, "--clear", "scope", "--scope", "b").status == 2
    assert "valid_to" not in cli("update", id, "--clear", "valid-to", "--json").json


def test_delete_one_and_all(cli: Run) -> None:
    ids = [cli("add", f"m{n}", "-s", f"s{n % 2}").out.strip() for n in range(4)]
    assert cli("delete", ids[0], "--json").json == {"deleted": 1}
    assert cli("delete", ids[0]).status == 3
    assert cli("delete", "--all", "--yes", "-s", "s1", "--json").json == {"deleted": 2}
    assert cli("delete", ids[2], "-s", "s0").status == cli("delete", ids[2], "--all", "--yes").status == 2
    assert [item["content"] for item in cli("list", "--json").json["items"]] == ["m2"]


def test_audit_names_this_program_and_holds_no_content(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    id = cli("add", "a private thing").out.strip()
    cli("get", id)
    audited = cli("audit", "--json")
    assert [(e["action"], e["app"]) for e in audited.json["entries"]] == [
        (of, "openproto-cli") for of in ("get", "add")
    ]
    assert "private" not in audited.out
    monkeypatch.setenv("OPENPROTO_APP", "cron")
    cli("list")
    assert [e["action"] for e in cli("audit", "--app", "cron", "-n", "5", "--json").json["entries"]][-1] == "list"
    piped = cli("audit", "--memory", id, "--app", "openproto-cli").out.splitlines()
    assert [line.split("\t")[1:3] for line in piped] == [["get", id], ["add", id]]


def test_a_piped_line_is_a_record_whatever_it_holds(cli: Run) -> None:
    content = "tab\there\nnew line \\ backslash \x1b[31m\u202e\x9b"
    id = cli("add", content, "-s", "a b").out.strip()
    for command in (["list"], ["search", "tab backslash"]):
        (line,) = cli(*command).out.splitlines()
        fields = line.split("\t")
        assert (fields[0], fields[2]) == (id, "a b")
        assert fields[4] == "tab\\there\\nnew line \\\\ backslash \\x1b[31m\\u202e\\x9b"
    assert cli("list", "--json").json["items"][0]["content"] == content
    assert not set("\x1b\x9b\u202e") & set(cli("list", "--json").out)


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
    assert [line.split("\t")[2] for line in cli("list", "--tag", "a", "--tag", "b").out.splitlines()] == ["food/tea"]
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
    assert "line 3: id: a record of another user" in ended.err
    assert "line 4: is not an exported memory" in ended.err
