"""On a terminal: tables for people, and stored text that cannot act."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from commandline import Run

from openproto.cli.app import app

EVIL = (
    "red \x1b[31malert\x1b]0;title\x07\x9b5n\u202egnp.exe [bold]not markup[/bold] :smile:\nnext\tline "
    "👩‍💻 \x7f\x85\u2028"
)


def test_results_are_tables(cli: Run, terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    id = cli("add", "tea, not coffee", "-s", "food", "-t", "hot", "--source", "app=two\n lines").out.strip()
    listed, searched, audited = terminal("list"), terminal("search", "tea"), terminal("audit")
    assert all(word in listed for word in ("made", "memory", f"{id} · food · #hot"))
    assert "score" in searched
    assert "\x1b[" in searched
    assert "when" in audited
    assert "two lines" in audited  # a cell is one line
    assert id in audited, "a narrow terminal shortens no id"
    assert f"stored {id}" != terminal("add", "x").strip()
    assert "tokens, 2 memories" in terminal("context", "tea")
    assert "nothing found" in terminal("search", "zebra")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal("list") + terminal("doctor"))


def test_stored_text_cannot_act_on_the_terminal(cli: Run, terminal: Callable[..., str]) -> None:
    id = cli("add", EVIL, "-s", "s\x1b[2J", "-t", "t\x1b[2J", "--source", "app=a\x1b[2J").out.strip()
    commands = (["list"], ["list", "--json"], ["get", id], ["search", "red"], ["context", "red"], ["audit"], ["export"])
    shown = {" ".join(command): terminal(*command) for command in commands}
    for command, text in shown.items():
        # What may stand there is rich's own: colours, and its progress bar's line and cursor.
        assert not re.sub(r"\x1b\[[0-9;?]*[mlhKA]", "", text).count("\x1b"), command
        assert "\x1b[31m" not in text
        assert not {"\x07", "\x9b", "\u202e", "\x7f", "\x85", "\u2028"} & set(text)
    assert "[bold]not markup[/bold] :smile:" in shown[f"get {id}"]
    assert "👩‍💻 \\x7f\\x85\\u2028" in shown[f"get {id}"]
    assert json.loads(shown["list --json"])["items"][0]["content"] == EVIL


def test_messages_about_hostile_names_are_harmless_too(cli: Run, tmp_path: Path) -> None:
    file = tmp_path / "a\x1b[31mb"
    ended = cli("import", str(file))
    assert "\x1b" not in ended.err
    assert "\x1b" not in cli("search", "x", "--no-\x1b[31m").err
    assert "\x1b" not in cli("list", "-p", "x\x1b[31m").err
    assert "\x1b" not in cli("export", str(file)).err


def commands(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    for name, each in getattr(group, "commands", {}).items():
        yield from commands(each, *path, name)


@pytest.mark.parametrize("columns", ["60", "100"])
def test_the_help_of_every_command_fits(cli: Run, columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    paths = list(commands(typer.main.get_command(app)))
    assert ("keys", "add") in paths
    for path in paths:
        shown = cli(*path, "--help").out
        assert "Usage: openproto" in shown
        assert not re.search(r"<\w|\[\[|…", shown), path
        assert max(map(len, shown.splitlines())) <= int(columns)


def test_deleting_everything_asks_first(cli: Run, terminal: Callable[..., str]) -> None:
    cli("add", "x")
    assert "nothing was changed" in terminal("delete", "--all", keys="n\n")
    assert "deleted 1" in terminal("delete", "--all", keys="y\n")
