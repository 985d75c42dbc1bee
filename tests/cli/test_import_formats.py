"""What people have, in the forms in which other programs write it: recognised, mapped, and stored once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commandline import Run

AT = "2024-07-20T01:28:18.109+00:00"
MADE = {"created_at": AT.replace("+00:00", "000Z")}
TEA = "Alice likes tea"

USED = {"user_id": "ada", "agent_id": "chef", "run_id": "7"}
MEM0 = {"id": "892", "memory": TEA, "hash": "abc", "metadata": {"category": "pref", "n": {"a": [1]}}, "created_at": AT}
PLATFORM = {"id": "1", "memory": TEA, "user_id": "ada", "categories": ["food"], "expiration_date": "2031-01-01"}
PASSAGE = {"id": "p1", "text": TEA, "embedding": [0.1], "archive_id": "a1", "created_at": AT, "tags": ["a"]}
FACT = {"uuid": "u1", "name": "LIKES", "fact": TEA, "valid_at": AT, "invalid_at": "2025-01-01T00:00:00Z"}
ITEM = {"namespace": ["memories", "a/b"], "key": "k1", "value": {"data": TEA, "n": 1}, "created_at": AT}
ENTITY = {"type": "entity", "name": "Alice", "entityType": "person", "observations": ["likes tea", "naps"]}
RELATION = {"type": "relation", "from": "Alice", "to": "Oslo", "relationType": "lives in"}
SAID = {"author": {"role": "user"}, "content": {"parts": [TEA]}, "create_time": 1700000000.5}
ANSWERED = {"author": {"role": "assistant"}, "content": {"parts": ["Noted."]}}
CHATGPT = {
    "title": "T",
    "conversation_id": "c1",
    "current_node": "c",
    "mapping": {
        "a": {"id": "a", "message": None, "parent": None},
        "b": {"message": SAID, "parent": "a"},
        "x": {"message": {**SAID, "content": {"parts": ["edited away"]}}, "parent": "a"},
        "c": {"message": ANSWERED, "parent": "b"},
    },
}
TURN = {"conversation": "c1", "turn": 0}
CLAUDE = {
    "uuid": "c2",
    "name": "T",
    "chat_messages": [
        {"sender": "human", "text": TEA, "created_at": AT},
        {"sender": "assistant", "content": [{"type": "text", "text": "Noted."}]},
    ],
}
CLAUDE_MEMORY = [{"conversations_memory": f"**Tastes**\n\n{TEA}", "project_memories": {"p1": "Ship it"}}]


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


FORMATS: list[Any] = [
    (
        "mem0",
        json.dumps({"results": [{**MEM0, **USED}], "relations": []}, indent=2),
        [TEA],
        {"tags": ["pref"], "scope": "agent/chef/run/7", "source": {"app": "mem0", "type": "imported"}, **MADE},
        {"id": "892", "hash": "abc", "metadata": MEM0["metadata"], "created_at": AT},
    ),
    ("mem0", json.dumps([PLATFORM]), [TEA], {"tags": ["food"], "valid_to": "2031-01-01T23:59:59.999999Z"}, {}),
    ("mem0", lines(MEM0, {**MEM0, "id": "2"}), [TEA, TEA], {"tags": ["pref"]}, {"hash": "abc"}),
    ("letta", json.dumps(PASSAGE), [TEA], {"tags": ["a"], **MADE}, {"archive_id": "a1"}),
    ("letta", json.dumps([{"id": "a1", "name": "n", "passages": [PASSAGE]}]), [TEA], {}, {"archive": "n"}),
    ("letta", json.dumps({"agents": [{}], "blocks": [{"label": "human", "value": TEA}]}), [TEA], {}, {}),
    (
        "zep",
        json.dumps({"edges": [FACT], "nodes": [{"name": "Alice"}]}),
        [TEA],
        {"valid_from": AT.replace("+00:00", "000Z"), "valid_to": "2025-01-01T00:00:00Z", "tags": ["LIKES"]},
        {"id": "u1"},
    ),
    (
        "langgraph",
        json.dumps([ITEM]),
        [TEA],
        {"scope": "memories/a%2Fb", "key": "k1", **MADE},
        {"value": ITEM["value"], "created_at": AT},
    ),
    ("mcp", lines(ENTITY, RELATION), ["Alice: likes tea", "Alice: naps", "Alice lives in Oslo"], {}, {}),
    ("mcp", json.dumps({"entities": [ENTITY], "relations": []}), ["Alice: likes tea", "Alice: naps"], {}, {}),
    (
        "chatgpt",
        json.dumps([CHATGPT]),
        [TEA, "Noted."],
        {"tags": ["user"], "x-openproto": TURN, "created_at": "2023-11-14T22:13:20.500000Z"},
        {"title": "T", "id": "c1/0"},
    ),
    ("claude", json.dumps([CLAUDE]), [TEA, "Noted."], {"x-openproto": {**TURN, "conversation": "c2"}, **MADE}, {}),
    ("chatgpt-memories", json.dumps({"memories": [{"content": TEA}], "memory_max_tokens": 9}), [TEA], {}, {}),
    ("claude-memories", json.dumps(CLAUDE_MEMORY), ["**Tastes**", TEA, "Ship it"], {}, {}),
    ("csv", f'Memory;User;Tags;Mood\r\n"{TEA}";bob;a|b;good\r\n', [TEA], {"tags": ["a", "b"]}, {"mood": "good"}),
    ("csv", f"content\n{TEA}\n", [TEA], {}, {}),
    ("json", json.dumps([TEA, "x"]), [TEA, "x"], {}, {}),
    ("json", json.dumps([{"content": TEA, "mood": 1, "tags": ["t"]}]), [TEA], {"tags": ["t"]}, {"mood": 1}),
    (
        "text",
        f"# Tastes\n\n- {TEA}\n  and cake\n- [x] naps\n\nOne\nparagraph.\n---\n1. last\n",
        [f"{TEA}\nand cake", "naps", "One\nparagraph.", "last"],
        {"source": {"app": "text", "type": "imported"}},
        {"heading": "Tastes"},
    ),
]


@pytest.mark.parametrize(("number", "case"), [*enumerate(FORMATS)])
def test_a_file_of_another_program_is_mapped_and_stored_once(cli: Run, tmp_path: Path, number: int, case: Any) -> None:
    name, file, contents, fields, kept = case
    path = tmp_path / "file"
    path.write_bytes(file.encode("utf-16" if number % 2 else "utf-8-sig"))
    command = ("import", str(path), "--user", "ada", "--json", "--turns")
    assert cli(*command, "--dry-run").json["valid"] == len(contents)
    assert cli("list").out == ""
    for _ in range(2):
        ended = cli(*command)
        assert (ended.status, ended.json["format"]) == (0, name), ended.err
    stored = [*reversed(cli("list", "--json").json["items"])]
    assert [record["content"] for record in stored] == contents
    assert {field: stored[0].get(field) for field in fields} == fields
    imported = stored[0]["x-imported"]
    assert {field: imported.get(field) for field in kept} == kept
    assert "embedding" not in imported


def test_what_it_was_taken_for_is_said_and_can_be_overruled(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(json.dumps({"edges": [FACT], "nodes": [{"name": "Alice"}]}))
    said = "taken for facts of Zep or Graphiti (--format zep): its items have fact; nodes in it are left out\n"
    assert cli("import", str(file), "-u", "ada").err == said
    file.write_text(f"content\n{TEA}\n")
    assert cli("import", str(file), "-u", "bob", "--format", "text").status == 0
    assert [record["content"] for record in cli("list", "-u", "bob", "--json").json["items"]] == [f"content\n{TEA}"]
    assert cli("import", str(file), "--format", "notes").ended(2, "csv", "zep")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (json.dumps([CHATGPT]).encode(), "--turns"),
        (json.dumps([TEA]).encode(), "--user"),
        (b"PK\x03\x04\0\0", "unpack"),
        (b'{"some": {"thing": 1}}', "--format"),
        (b"\xff\xfea", "not UTF-16 to its end"),
    ],
)
def test_what_holds_no_memories_is_one_error(cli: Run, tmp_path: Path, data: bytes, told: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(data)
    ended = cli("import", str(file))
    assert (ended.status, ended.out, ended.err.count("error: "), cli("list").out) == (2, "", 1, "")
    assert told in ended.err


@pytest.mark.parametrize(
    ("file", "named"),
    [
        (json.dumps([MEM0, 7, {**MEM0, "id": "2", "memory": " "}, {**MEM0, "id": "3"}]), ["item 2", "item 3"]),
        (json.dumps([MEM0, {**MEM0, "id": "2"}])[:-20], ["item 2"]),
        (lines(ENTITY, {"type": "entity", "name": "B", "observations": 7}, RELATION), ["line 2"]),
        (f"content,confidence\n{TEA},often\nx,1,too,many\n\nnaps,0.5\n", ["line 2", "line 3"]),
        ('content,user\nnaps,ada\n"no end,ada\n' + "x\n" * 6_000 + "tea,ada\n", ["line"]),
        ("- naps\n- \udc80\n- tea\n", ["line 2"]),
    ],
)
def test_a_bad_place_is_told_and_the_rest_goes_on(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, named: list[str]
) -> None:
    monkeypatch.setattr("openproto.portable.formats.table._LONGEST_CELL", 10_000)
    path = tmp_path / "file"
    path.write_bytes(file.encode(errors="surrogateescape"))
    ended = cli("import", str(path), "-u", "ada")
    assert ended.status == 1
    told = [line for line in ended.err.splitlines() if not line.startswith("taken for")]
    assert [line.rpartition(named[at])[1] for at, line in enumerate(told)] == named, ended.err
    assert TEA not in ended.err
    assert len(cli("list").out.splitlines()) >= 1


def test_ids_are_of_their_user_and_may_be_numbers_and_a_broken_line_is_alone(cli: Run, tmp_path: Path) -> None:
    old = [{"id": 1, "content": f"old {user}", "user_id": user, "superseded_by": 2} for user in ("ada", "bob")]
    new = [{"id": 2, "content": f"new {user}", "user_id": user, "supersedes": [1]} for user in ("ada", "bob")]
    file = tmp_path / "file"
    file.write_text('{"content":\n' + lines(*old, *new))
    for _ in range(2):
        ended = cli("import", str(file))
        assert (ended.status, ended.out) == (1, "4 memories stored, 2 supersessions restored, 1 line failed\n")
    for user in ("ada", "bob"):
        current = cli("search", "old new", "-u", user, "--json").json["results"]
        assert [result["memory"]["content"] for result in current] == [f"new {user}"]
        assert current[0]["memory"]["x-imported"]["id"] == 2


def test_restoring_wants_lines(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(json.dumps({"results": [{"id": "1", "content": TEA, "user_id": "ada"}]}, indent=1))
    ended = cli("restore", str(tmp_path / "file"))
    assert (ended.status, ended.out, "one JSON document" in ended.err) == (2, "", True)
