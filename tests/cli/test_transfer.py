"""Moving memories: nothing lost, nothing twice, however often and wherever it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from commandline import Run, contents, interrupt
from openproto_adapters.sqlite import Sqlite

from openproto import ProviderUnavailableError, ScopeDeniedError
from openproto.provider import Outcomes, Provider, RestoreOutcomes

MANY = 3000


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_was_exported_is_the_same_in_another_store(cli: Run, tmp_path: Path) -> None:
    fields = ("-s", "a/b", "-t", "ü", "--confidence", "0.5", "--source", "app=n", "-x", 'x-imported={"id": 7}')
    first = cli("add", "one", "--key", "k", *fields).out.strip()
    second = cli("add", "two", "--valid-to", "2040-01-01T00:00:00Z").out.strip()
    third = cli("add", "three", "--supersedes", first, "--supersedes", second).out.strip()
    cli("delete", cli("add", "four", "--supersedes", third).out.strip())
    file, there = tmp_path / "f", ("--path", str(tmp_path / "there.db"))
    assert cli("export", str(file)).status == 0
    lines = read_lines(file)
    for_eve = ("import", str(write_lines(tmp_path / "ada", lines)), "--user", "eve", *there)
    # A second user has the same ids, as after a copy by hand.
    write_lines(file, [{**line, "user_id": user} for user in ("ada", "bob") for line in lines])

    def held(user: str) -> list[dict[str, Any]]:
        items = cli("list", "--json", "--user", user, *there).json["items"][::-1]
        return [{name: value for name, value in item.items() if name != "version"} for item in items]

    command = ("import", str(file), *there)
    assert cli(*command).out == "6 memories stored, 2 supersessions restored\n"
    assert cli(*command).out == "0 memories stored, 6 there already\n"
    assert held("ada") == [{name: value for name, value in line.items() if name != "version"} for line in lines]
    one, two, three = held("bob")
    assert not {one["id"], two["id"], three["id"]} & {first, second, third}
    assert [record["created_at"] for record in (one, two, three)] == [line["created_at"] for line in lines]
    assert (three["supersedes"], one["superseded_by"]) == ([one["id"], two["id"]], three["id"])
    assert (one["x-imported"]["id"], one["x-imported"]["earlier"]) == (first, {"id": 7})
    cli("delete", second, *there)
    cli("update", first, "--content", "changed", *there)
    assert cli(*command).out == "1 memory stored, 5 there already\n"
    assert [record["content"] for record in held("ada")] == ["changed", "two", "three"]
    assert cli(*for_eve).out == "3 memories stored, 1 supersession restored\n"
    assert cli(*for_eve).out == "0 memories stored, 3 there already\n"


def test_a_store_that_cannot_restore_gets_new_memories(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def restore(self: Provider, records: Any) -> RestoreOutcomes:
        raise ScopeDeniedError("not with this key")  # as a server does for a key of one user

    monkeypatch.setattr(Sqlite, "restore", restore)
    paris = cli("add", "Paris", "-s", "home").out.strip()
    cli(*("add", "tea", "-s", "food", "-t", "hot", "--source", "app=notes", "--confidence", "0.5"))
    cli("add", "then", "--valid-from", "2019-01-01T00:00:00Z", "--valid-to", "2020-01-01T00:00:00Z", "-x", "x-a=[1]")
    cli("update", cli("add", "Lisbon", "--supersedes", paris).out.strip(), "--tag", "new")
    file = tmp_path / "ada.jsonl"
    assert cli("export", str(file)).status == 0
    before = read_lines(file)
    assert [line["content"] for line in before] == ["Paris", "tea", "then", "Lisbon"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    there = ("--path", str(tmp_path / "there.db"))
    first = cli("import", str(file), *there)
    assert (first.status, first.out) == (0, "4 memories stored, 1 supersession restored\n")
    assert "ids and dates become new here" in first.err
    after = [*reversed(cli("list", "--json", *there).json["items"])]
    assert cli("import", str(file), *there).out == first.out
    assert [*reversed(cli("list", "--json", *there).json["items"])] == after  # a link that stands is not made again
    ids = {old["id"]: new["id"] for old, new in zip(before, after, strict=True)}
    unset = {"id", "created_at", "updated_at", "supersedes", "superseded_by", "version"}
    for old, new in zip(before, after, strict=True):
        assert new.pop("x-imported") == {k: old[k] for k in (unset - {"superseded_by"}) & old.keys()}
        assert {k: v for k, v in old.items() if k not in unset} == {k: v for k, v in new.items() if k not in unset}
        assert new.get("supersedes") == ([ids[id] for id in old["supersedes"]] if "supersedes" in old else None)
        assert new.get("superseded_by") == (ids[old["superseded_by"]] if "superseded_by" in old else None)
    for user, earlier in (("bob", "ada"), ("eve", "bob")):
        cli("import", str(file), "--user", user)
        cli("export", str(file), "--user", user, "--force")
        imported = read_lines(file)[0]["x-imported"]
        assert imported["user_id"] == earlier
    assert imported["earlier"]["user_id"] == "ada"


def test_lines_in_any_order_find_what_they_supersede_also_what_is_stored_already(cli: Run, tmp_path: Path) -> None:
    lines = [
        {"id": "new", "content": "Lisbon", "user_id": "ada", "supersedes": ["old", "gone"]},
        {"id": "old", "content": "Paris", "user_id": "ada", "superseded_by": "new"},
        {"id": "orphan", "content": "Rome", "user_id": "ada", "superseded_by": "elsewhere"},
    ]
    ended = cli("import", str(write_lines(tmp_path / "f", lines)))
    assert (ended.status, ended.out) == (0, "3 memories stored, 1 supersession restored\n")
    assert "1 memory that superseded others" in ended.err
    found = {item["content"]: item for item in cli("list", "--json").json["items"]}
    new, old = found["Lisbon"], found["Paris"]
    assert (new["supersedes"], old["superseded_by"]) == ([old["id"]], new["id"])
    assert new["x-imported"]["supersedes"] == ["old", "gone"]
    next_one = {"content": "Madrid", "user_id": "ada", "supersedes": [new["id"]]}
    assert cli("import", str(write_lines(tmp_path / "f", [next_one]))).status == 0
    assert cli("get", new["id"], "--json").json["superseded_by"]


def test_bad_lines_are_named_counted_and_left_out(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openproto.portable.formats.json_files.LONGEST", 200_000)
    file = tmp_path / "f"

    def line(**fields: Any) -> bytes:
        return json.dumps({"content": "x", "user_id": "ada", **fields}).encode()

    lines = [
        *(b"\xef\xbb\xbf" + line(content="good"), b"not json", b"", b'["a list"]', line(content="")),
        *(line(contents="private"), line(valid_from="2020-01-01"), line(valid_from="soon")),
        *(line(supersedes=["no-such-id"]), line(supersedes="text"), line(id=7.5), line(content="lone \ud800")),
        *(b"[" * 100_000, line(content="x" * 300_000), b"\xff" + line(), line(content="good too")),
        *(line(id="private", created_at="private"), line(id="")),
    ]
    file.write_bytes(b"\n".join(lines))
    checked = cli("import", str(file), "--dry-run")
    assert (checked.status, checked.out) == (1, "3 memories valid, 14 lines failed\n")
    assert cli("list").out == ""
    ended = cli("import", str(file))
    assert ended.status == 1
    named = [int(line.split()[1].rstrip(":")) for line in ended.err.splitlines()]
    assert named == [2, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 17, 18, 9]  # 9 fails when it is linked
    assert ended.out == "3 memories stored, 15 lines failed\n"
    assert "line 14: is longer than" in ended.err
    assert "private" not in ended.err
    assert sorted(item["content"] for item in cli("list", "--json").json["items"]) == ["good", "good too", "x"]
    as_json = cli("import", str(file), "--json")
    assert as_json.json["failed"] == 15
    errors = [json.loads(line) for line in as_json.err.splitlines()]
    assert {error["error"]["code"] for error in errors} == {"invalid_request", "not_found"}


def test_a_line_is_stored_once_however_often_and_wherever_it_stands(cli: Run, tmp_path: Path) -> None:
    lines = [{"id": id, "content": id, "user_id": "ada", "created_at": "2020-01-01T00:00:00Z"} for id in "abc"]
    plain = [{"content": "same", "user_id": "ada"}] * 3
    for order in (lines, lines[::-1], lines[1:], plain, plain):
        assert cli("import", str(write_lines(tmp_path / "f", order))).status == 0
        assert len(cli("list").out.splitlines()) == (6 if order is plain else 3)
    ended = cli("import", str(write_lines(tmp_path / "f", [{**lines[0], "content": "second"}])))
    assert (ended.status, ended.out) == (0, "0 memories stored, 1 there already\n")
    assert "second" not in cli("list").out


def test_standard_streams(run: Run, tmp_path: Path) -> None:
    run("import", "-", stdin='{"content": "ünï 🫖", "user_id": "ada"}\n')
    exported = run("export", PYTHONIOENCODING="latin-1")
    assert json.loads(exported.out)["content"] == "ünï 🫖"
    assert exported.err == "exported 1 memory of ada\n"
    piped = run("import", "-", "--path", str(tmp_path / "there.db"), stdin=exported.out)
    assert (piped.status, piped.out) == (0, "1 memory stored\n")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f'echo \'{{"content": "f", "user_id": "ada"}}\' > "{fifo}"']):
        assert run("import", str(fifo)).status == 0


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_what_was_interrupted_goes_on_and_has_each_memory_once(
    cli: Run, terminal: Callable[..., str], tmp_path: Path, environment: Path, signal_: signal.Signals
) -> None:
    lines = write_lines(tmp_path / "many.jsonl", [{"content": f"m{n}", "user_id": "ada"} for n in range(MANY)])

    def halfway() -> bool:
        with suppress(sqlite3.OperationalError):
            return len(contents(environment)) >= 500
        return False

    ended = interrupt(["import", str(lines)], signal_, halfway)
    assert 500 <= len(contents(environment)) < MANY
    if signal_ is signal.SIGINT:
        assert ended.status == 130
        assert "the same command stores nothing twice" in ended.err
        assert len(ended.err.splitlines()) == 1
    assert "importing" in terminal("import", str(lines))
    again = cli("import", str(lines), "--json")
    assert again.json["stored"] + again.json["exists"] == MANY
    assert again.err == ""  # progress is for terminals
    assert contents(environment) == [f"m{n}" for n in range(MANY)]

    file, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    interrupt(["export", str(file)], signal.SIGKILL, lambda: part.exists() and part.stat().st_size > 100_000)
    assert not file.exists()
    assert 0 < part.read_bytes().count(b"\n") - 1 < MANY
    with part.open("ab") as torn:
        torn.write(b'{"id": "half a li')
    cli("add", "made after the interruption")
    assert cli("export", str(file), "--json").json == {"exported": MANY, "file": str(file)}
    assert [line["content"] for line in read_lines(file)] == [f"m{n}" for n in range(MANY)]
    assert not part.exists()


def test_only_the_same_interrupted_export_is_continued(cli: Run, tmp_path: Path, environment: Path) -> None:
    file, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    for n in range(6):
        cli("add", f"m{n}")
    with closing(sqlite3.connect(environment, isolation_level=None)) as db:  # equal moments are not doubled
        db.execute("UPDATE memories SET created_at = (SELECT max(created_at) FROM memories)")
    items = cli("list", "--json").json["items"]
    for user, gathered in (("ada", items[:3]), ("ada", [{**items[0], "id": "of another"}]), ("bob", items[:3])):
        write_lines(part, [{"export": {"provider": "sqlite", "user_id": user, "scope": None, "tag": None}}, *gathered])
        assert cli("export", str(file), "--force").status == 0
        assert read_lines(file) == [*reversed(items)]


def test_an_export_replaces_only_by_force_and_narrows(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    cli("add", "a", "-s", "s/t", "-t", "x")
    cli("add", "b")
    assert cli("export", str(file), "-s", "s").status == 0
    assert len(read_lines(file)) == 1
    assert cli("export", str(file)).ended(2, "--force")
    assert cli("export", str(file), "--force").status == 0
    assert len(read_lines(file)) == 2
    assert cli("export", str(tmp_path / "none" / "f")).status == 2
    assert sorted(p.name for p in tmp_path.iterdir() if "out" in p.name) == ["out.jsonl"]


def test_a_backend_that_fails_stops_the_import(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    real: Any = Sqlite.add_many

    async def add_many(self: Provider, items: Any) -> Outcomes:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise ProviderUnavailableError("the database is down")
        return await real(self, items)

    monkeypatch.setattr(Sqlite, "add_many", add_many)
    monkeypatch.setenv("OPENPROTO_RETRIES", "0")
    lines = [{"content": f"m{n}", "user_id": "ada"} for n in range(1000)]
    ended = cli("import", str(write_lines(tmp_path / "f", lines)))
    assert (ended.status, calls) == (5, 3)
    assert "stopped after 500 memories" in ended.err
    assert "the database is down" in ended.err
