"""The verbs: what they store, print into a pipe, and print for programs."""

from __future__ import annotations

import json

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
    expected = {
        "content": "tea, not coffee",
        "user_id": "ada",
        "scope": "food/drinks",
        "tags": ["a", "b"],
        "source": {"app": "notes", "type": "explicit", "ref": "n=1"},
        "confidence": 0.5,
        "valid_from": "2025-12-31T22:00:00Z",
        "valid_to": "2099-01-01T00:00:00Z",
        "supersedes": [old],
        "x-acme": {"k": [1, None]},
    }
    assert expected.items() <= added.items()
    assert cli("get", added["id"], "--json").json == added
    assert cli("get", old, "--json").json["superseded_by"] == added["id"]
    first = cli("add", "x", "--idempotency-key", "k")
    assert first.out == cli("add", "x", "--idempotency-key", "k").out
    assert first.out == cli("add", "X.", "--on-duplicate", "skip").out
    assert cli("get", added["id"], "--user", "bob").status == cli("get", "no-such-id").status == 3
    lines = dict(line.split("\t") for line in cli("capabilities").out.splitlines())
    assert (lines["add"], lines["vector_search"], lines["keyword_search"]) == ("native", "no", "yes")
    assert cli("capabilities", "--json").json["provider"] == "sqlite"


def test_content_comes_from_stdin_as_it_is_in_any_language_and_locale(run: Run) -> None:
    id = run("add", "-", stdin="two\nlines \n").out.strip()
    assert run("get", id, "--json").json["content"] == "two\nlines "
    assert run("update", id, "--content", "-", stdin="new\n").status == 0
    assert run("get", id, "--json").json["content"] == "new"
    assert run("add", "-", stdin=b"\xff\xfe").status == 2
    assert run("add", b"\xff".decode(errors="surrogateescape")).status == 2
    assert "100000" in run("add", "-", stdin="x" * 500_000).err
    content = "Ада пьёт чай 🫖 שלום ✓ नमस्ते"
    id = run("add", content).out.strip()
    assert content in run("get", id).out
    latin = run("get", id, PYTHONIOENCODING="latin-1")
    assert (latin.status, "\\u0410" in latin.out) == (0, True)
    assert run("get", id, "--json", PYTHONIOENCODING="latin-1").json["content"] == content


def test_search_list_and_context_narrow(cli: Run) -> None:
    tea = cli("add", "Ada drinks tea", "-s", "food/drinks", "-t", "hot").out.strip()
    cli("add", "Ada eats bread", "-s", "food")
    cli("add", "Ada drinks rivals' blood", "-s", "work")
    results = cli("search", "what does Ada drink", "-s", "food", "--json").json["results"]
    assert results[0]["memory"]["id"] == tea
    assert {result["memory"]["scope"] for result in results} == {"food/drinks", "food"}
    assert [r["memory"]["id"] for r in cli("search", "tea", "-t", "hot", "-n", "1", "--json").json["results"]] == [tea]
    assert cli("search", "tea", "--min-score", "1", "-s", "work", "--json").json == {"results": []}
    (told,) = cli("search", "tea", "-t", "hot", "--explain", "--json").json["results"]
    assert sum(told["parts"].values()) == pytest.approx(told["score"])
    fields = cli("search", "tea", "-t", "hot", "--explain").out.rstrip("\n").split("\t")
    assert fields[4:] == ["Ada drinks tea", ",".join(f"{name} {value:.4f}" for name, value in told["parts"].items())]
    assert len(cli("list", "-s", "food", "--json").json["items"]) == 2
    block = cli("context", "what does Ada drink", "-b", "30", "--json").json
    assert block["citations"][0]["memory_id"] == tea or block["token_count"] <= 30
    text = cli("context", "tea")
    assert text.out.startswith(f"Ada drinks tea [{tea}]\n")
    assert text.err == ""
    cli("add", "then", "--valid-to", "2020-01-01T00:00:00Z", "-s", "past")
    assert cli("search", "then", "--json").json["results"] == []
    assert len(cli("search", "then", "--as-of", "2019-01-01T00:00:00Z", "--json").json["results"]) == 1
    assert cli("list", "--until", "2000-01-01T00:00:00Z", "--json").json["items"] == []
    assert len(cli("list", "--since", "2000-01-01T00:00:00Z", "-s", "past", "--json").json["items"]) == 1


def test_pages_follow_each_other(cli: Run) -> None:
    for n in range(5):
        cli("add", f"m{n}")
    seen: list[str] = []
    cursor: list[str] = []
    while True:
        page = cli("list", "-n", "2", "--json", *cursor).json
        seen += [item["content"] for item in page["items"]]
        if "next_cursor" not in page:
            break
        cursor = ["--cursor", page["next_cursor"]]
    assert seen == ["m4", "m3", "m2", "m1", "m0"]
    assert "--cursor" in cli("list", "-n", "2").err


def test_update_changes_clears_and_leaves_alone(cli: Run) -> None:
    id = cli("add", "x", "-s", "a", "-t", "t", "--confidence", "1").out.strip()
    record = cli("update", id, "--content", "y", "--clear", "scope", "--clear", "tags", "--json").json
    assert (record["content"], record["confidence"]) == ("y", 1.0)
    assert not {"scope", "tags"} & record.keys()
    assert cli("update", id, "--clear", "scope", "--scope", "b").status == 2
    cleared = cli("update", id, "--valid-to", "2099-01-01T00:00:00Z", "--json").json
    assert cleared["valid_to"] == "2099-01-01T00:00:00Z"
    assert "valid_to" not in cli("update", id, "--clear", "valid-to", "--json").json


def test_delete_one_and_all(cli: Run) -> None:
    ids = [cli("add", f"m{n}", "-s", f"s{n % 2}").out.strip() for n in range(4)]
    assert cli("delete", ids[0], "--json").json == {"deleted": 1}
    assert cli("delete", ids[0]).status == 3
    assert cli("delete", "--all", "--yes", "-s", "s1", "--json").json == {"deleted": 2}
    assert cli("delete", ids[2], "-s", "s0").status == 2
    assert cli("delete", ids[2], "--all", "--yes").status == 2
    assert [item["content"] for item in cli("list", "--json").json["items"]] == ["m2"]


def test_audit_names_this_program_and_holds_no_content(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    id = cli("add", "a private thing").out.strip()
    cli("get", id)
    entries = cli("audit", "--json").json["entries"]
    assert [(e["action"], e["app"]) for e in entries] == [("get", "openproto-cli"), ("add", "openproto-cli")]
    assert "private" not in json.dumps(entries)
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
