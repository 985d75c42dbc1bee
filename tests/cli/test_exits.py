"""How commands end, what a terminal shows, and what shells complete: never a traceback, a secret, or text that acts."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from commandline import PROGRAM, Run

from openproto import __version__ as version
from openproto import cli as package
from openproto.cli.app import app
from openproto.cli.exits import MEANINGS, Exit, exit_of
from openproto.cli.redact import Redactor
from openproto.errors import ErrorCode

pytestmark = pytest.mark.usefixtures("faulty")

STATUSES = {
    **dict.fromkeys(("provider_error", "internal_error"), 1),
    **dict.fromkeys(("invalid_request", "payload_too_large"), 2),
    "not_found": 3,
    **dict.fromkeys(("unauthorized", "scope_denied"), 4),
    **dict.fromkeys(("rate_limited", "provider_unavailable", "provider_timeout", "ingestion_timeout"), 5),
    **dict.fromkeys(("unsupported_capability", "conflict"), 6),
}


@pytest.mark.parametrize("code", get_args(ErrorCode))
def test_each_typed_error_ends_with_its_status(cli: Run, code: str) -> None:
    for when in ("open", "list"):
        arguments = ("list", "-p", "faulty", "-o", f"code={code}", "-o", f"when={when}")
        ended, as_json = cli(*arguments), cli(*arguments, "--json")
        assert ended.status == as_json.status == STATUSES[code]
        assert ended.out == as_json.out == ""
        assert ended.err.startswith("error: it failed")
        assert len(ended.err.splitlines()) == 2
        assert (as_json.error["code"], as_json.error["provider"]) == (code, "faulty")
        assert set(as_json.error) >= {"code", "message", "type"}
    assert exit_of("a code of the future") == 1


def test_help_documents_every_status(cli: Run) -> None:
    shown = cli("--help")
    assert shown.status == 0
    for status, meaning in MEANINGS.items():
        assert f"{status.value:>3}  {meaning}" in shown.out
    assert set(MEANINGS) == set(Exit)
    assert cli().out == shown.out
    assert cli("--version").out == f"openproto {version}\n"
    for command, absent in (("providers", "--provider"), ("keys list", "--timeout"), ("doctor", "--user")):
        assert absent not in cli(*command.split(), "--help").out.split()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *(("serach x", "Did you mean 'search'"), ("search x --no-such", "no such option")),
        *(("search", "missing argument 'QUERY'"), ("list --limit many", "valid integer"), ("list --limit 0", "limit")),
        *(("list --since yesterday", "moment"), ("list --since 2026-01-01", "with an offset")),
        *(("list --timeout 0", "timeout"), ("list -p sqlit", "did you mean 'sqlite'")),
        *(("list --url x", "unexpected option 'url'"), ("list -o no-equals-sign", "name=value")),
        *(("list -o embedder=nonsense", "no embedder 'nonsense'"), ("list --path :memory:", "path")),
        *(("list --cursor forged", "cursor"), ("add ' '", "blank"), ("delete", "either one ID, or --all")),
        *(("delete --all", "--yes"), ("reindex --embedder none", "--yes"), ("update some-id", "nothing to change")),
        *(("update some-id --clear content", "cannot be emptied"), ("import /no/such/file", "No such file")),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(cli: Run, line: str, said: str) -> None:
    ended, as_json = cli(*shlex.split(line)), cli(*shlex.split(line), "--json")
    assert (ended.status, ended.out, as_json.status) == (2, "", 2)
    assert said in ended.err
    assert len(ended.err.splitlines()) <= 2
    assert as_json.error["code"] == "invalid_request"


def test_a_missing_user_or_package_is_named(cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("list", "-p", "broken").ended(7, "pip install 'faulty[broken]'")
    monkeypatch.delenv("OPENPROTO_USER")
    for command in ("list", "search x", "context x", "audit", "add x", "export"):
        assert cli(*command.split()).ended(2, "--user")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing: str, run_python: Any) -> None:
    program = "import sys; sys.modules[sys.argv[1]] = None; from openproto.cli import main; sys.exit(main())"
    done = run_python(program, missing)
    assert done.returncode == Exit.MISSING == package._MISSING
    assert ("pip install 'openproto[cli]'" in done.stderr, len(done.stderr.splitlines())) == (True, 1)


def test_a_bug_is_1_without_traceback_or_content_unless_debug(cli: Run) -> None:
    command = ("list", "-p", "faulty", "-o", "code=bug")
    ended = cli(*command)
    assert (ended.status, "KeyError" in ended.err) == (1, True)
    assert not any(word in ended.err for word in ("secret", "Traceback"))
    assert cli(*command, "--json").error["code"] == "internal_error"
    assert "Traceback" in cli(*command, "--debug").err


@pytest.mark.parametrize("extra", [[], ["--json"], ["--debug"]])
def test_no_secret_is_ever_printed(cli: Run, extra: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["-p", "faulty", "-o", "code=unauthorized", "-o", "when=open", *extra]
    url = "postgresql://me:p%40ss-word@host:1/db?password=qu-ery"
    key = ["-o", "api_key=sk-12345"]

    def check(*given: str) -> None:
        for command in ("list", "doctor"):
            ended = cli(command, *arguments, *given)
            assert (ended.status, "it failed: ***" in ended.out + ended.err) == (4, True)
            assert not any(text in ended.out + ended.err for text in ("p%40ss", "p@ss", "qu-ery", "sk-12345"))

    check("--url", url, *key)
    check("-o", f"url={url}", *key)
    monkeypatch.setenv("OPENPROTO_URL", url)
    monkeypatch.setenv("OPENPROTO_API_KEY", "sk-12345")
    check()


def test_a_reader_that_leaves_is_met_with_silence(cli: Run, tmp_path: Path) -> None:
    lines = [f'{{"content": "memory number {n} {"x" * 500}", "user_id": "ada"}}\n' for n in range(1000)]
    (tmp_path / "lines").write_text("".join(lines))
    assert cli("import", str(tmp_path / "lines")).status == 0
    for command in (["export"], ["list", "--limit", "500"], ["list", "--limit", "500", "--json"]):
        process = subprocess.Popen([*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        said = process.stderr.read()
        assert not any(word in said for word in (b"Traceback", b"Broken", b"error"))
        process.stderr.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize(("command", "unbuffered"), [(["list"], ""), (["list"], "1"), (["--help"], "")])
def test_a_reader_that_had_left_already_is_too(cli: Run, command: list[str], unbuffered: str) -> None:
    # So little is printed that it waits in a buffer; unless that is dropped, the interpreter complains at its end.
    cli("add", "x")
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run([*PROGRAM, *command], stdout=write, stderr=subprocess.PIPE, timeout=30, env=environment)
    os.close(write)
    assert (done.returncode, b"Broken" in done.stderr) == (0, False)


def test_an_interrupt_is_130_and_one_line(cli: Run, environment: Path) -> None:
    # Another connection holds the lock, so the command waits until it is interrupted.
    cli("add", "x")
    holder = sqlite3.connect(environment, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    process = subprocess.Popen([*PROGRAM, "add", "y"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    opened: list[Path] = []
    while environment not in opened:
        assert process.poll() is None
        with suppress(FileNotFoundError):  # closed since it was listed
            opened = [each.readlink() for each in Path(f"/proc/{process.pid}/fd").iterdir()]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    holder.close()
    assert (process.returncode, out, len(err.splitlines()), b"interrupted" in err) == (130, b"", 1, True)


def test_help_imports_no_backend_and_no_settings(run_python: Any) -> None:
    heavy = ("pydantic_settings", "sqlite3", "asyncpg", "numpy", "wordllama", "httpx")
    help_is_shown = "import sys; from openproto.cli import main; main(['search', '--help'])"
    program = f"{help_is_shown}; print({{*sys.argv[1:]}} & {{*sys.modules}})"
    assert run_python(program, *heavy).stdout.splitlines()[-1] == "set()"


def test_texts_become_what_the_constructor_wants(cli: Run) -> None:
    given = ["-o", "size=3", "-o", "ratio=0.5", "-o", "loud=yes", "-o", 'names=["a", "b"]']
    ended = cli("list", "-p", "faulty", "-o", "code=options", *given)
    assert "{'size': 3, 'ratio': 0.5, 'loud': True, 'names': ['a', 'b']}" in ended.err


@pytest.mark.parametrize("given", ["size=qqq", "loud=qqq", "ratio=qqq", "names=qqq", "when=qqq", "retries=qqq"])
def test_a_value_of_another_type_is_refused_by_name_and_not_repeated(cli: Run, given: str) -> None:
    ended = cli("list", "-p", "faulty", "-o", given)
    name, value = given.split("=")
    assert ended.status == 2
    assert f"--option {name}:" in ended.err
    assert value not in ended.err


def test_options_are_named_and_win_over_variables(cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("list", "-p", "faulty", "-o", "sise=3").ended(2, "did you mean 'size'", "api_key")
    assert cli("list", "-o", "retries=0", "-o", "close_timeout=1.5", "-o", "app=me").status == 0
    assert cli("list", "-o", "retries=-1").status == 2
    other = tmp_path / "other.db"
    cli("add", "x", "--path", str(other))
    assert (cli("list").out, len(cli("list", "-o", f"path={other}").out.splitlines())) == ("", 1)
    monkeypatch.setenv("OPENPROTO_PROVIDER", "faulty")
    assert cli("list", "-o", "code=conflict").status == 6
    assert cli("list", "-p", "sqlite").status == 0
    monkeypatch.setenv("OPENPROTO_TIMEOUT", "sk-secret")
    ended = cli("list")
    assert (ended.status, "OPENPROTO_TIMEOUT" in ended.err, "sk-secret" in ended.err) == (2, True, False)


def test_what_the_redactor_hides() -> None:
    redact = Redactor(
        [("url", "postgresql://u:a@b:c/d@h/x"), ("token", "tok-1"), ("dsn", "host=h password=pw123 user=u")]
    )
    assert redact("a@b:c/d and tok-1 and pw123") == "*** and *** and ***"
    assert Redactor([("url", "postgresql://u:%70w1@h/x")])("pw1 %70w1") == "*** ***"
    assert Redactor([("size", "three"), ("url", "postgresql://h/x")])("three h x") == "three h x"


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
    assert "\x1b" not in cli("import", str(file)).err
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


BIN = Path(sys.executable).parent
BASH = """
source $1
complete_line() { COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _openproto_completion openproto; }
for line in "openproto sear" "openproto list --sco" "openproto list --provider pass"; do
    complete_line "$line"; echo "${COMPREPLY[@]}"
done
"""
FISH = """
source $argv[1]
for line in "openproto sear" "openproto list --sco" "openproto list --provider pass"; complete -C $line; end
"""
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -U compinit; compinit -u -D; source $1; print re''ady"
zpty -r shell shown '*ready*'
for pair in 'openproto sear:*search*' 'openproto list --sco:*scope*' 'openproto list --provider pass:*passthrough*'; do
    zpty -w -n shell "${pair%:*}"$'\t'
    zpty -r -m shell shown "${pair#*:}" || exit 1
    print -r -- $shown
    zpty -w -n shell $'\x15'
done
"""


@pytest.mark.operating
@pytest.mark.parametrize(("shell", "program"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_shell_completes_commands_options_and_providers(shell: str, program: str, tmp_path: Path) -> None:
    kept = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    run = partial(subprocess.run, capture_output=True, text=True, timeout=60)
    script, completion = tmp_path / "program", tmp_path / "completion"
    completion.write_text(run(["openproto"], env={**kept, "_OPENPROTO_COMPLETE": f"source_{shell}"}).stdout)
    script.write_text(program)
    done = run([shell, script, completion], env=kept)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("search", "--scope", "passthrough")), done.stdout
