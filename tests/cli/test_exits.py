"""How commands end: every status of the table, in words and as the envelope, and never a traceback or a secret."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from commandline import PROGRAM, Run

from openproto import __version__ as version
from openproto import cli as package
from openproto.cli.exits import MEANINGS, Exit, exit_of
from openproto.errors import ErrorCode

STATUSES = {
    "unauthorized": 4,
    "scope_denied": 4,
    "not_found": 3,
    "invalid_request": 2,
    "unsupported_capability": 6,
    "conflict": 6,
    "payload_too_large": 2,
    "rate_limited": 5,
    "provider_error": 1,
    "provider_unavailable": 5,
    "provider_timeout": 5,
    "ingestion_timeout": 5,
    "internal_error": 1,
}


def test_every_error_code_has_a_status() -> None:
    assert set(STATUSES) == set(get_args(ErrorCode))
    assert {code: exit_of(code) for code in STATUSES} == STATUSES
    assert exit_of("a code of the future") == 1


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("when", ["open", "list"])
@pytest.mark.parametrize("code", STATUSES)
def test_each_typed_error_ends_with_its_status(cli: Run, code: str, when: str) -> None:
    arguments = ("list", "-p", "faulty", "-o", f"code={code}", "-o", f"when={when}")
    ended = cli(*arguments)
    assert ended.status == STATUSES[code]
    assert ended.out == ""
    assert ended.err.startswith("error: it failed")
    assert len(ended.err.splitlines()) == 2
    ended = cli(*arguments, "--json")
    assert ended.status == STATUSES[code]
    assert ended.out == ""
    assert (ended.error["code"], ended.error["provider"]) == (code, "faulty")
    assert set(ended.error) >= {"code", "message", "type"}


def test_help_documents_every_status(cli: Run) -> None:
    shown = cli("--help")
    assert shown.status == 0
    for status, meaning in MEANINGS.items():
        assert f"{status.value:>3}  {meaning}" in shown.out
    assert set(MEANINGS) == set(Exit)
    assert cli().out == shown.out
    assert cli("--version").out == f"openproto {version}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serach", "x"], "Did you mean 'search'"),
        (["search", "x", "--no-such"], "no such option"),
        (["search"], "missing argument 'QUERY'"),
        (["list", "--limit", "many"], "valid integer"),
        (["list", "--limit", "0"], "limit"),
        (["list", "--since", "yesterday"], "moment"),
        (["list", "--since", "2026-01-01"], "with an offset"),
        (["list", "--timeout", "0"], "timeout"),
        (["list", "-p", "sqlit"], "did you mean 'sqlite'"),
        (["list", "--url", "x"], "unexpected option 'url'"),
        (["list", "-o", "no-equals-sign"], "name=value"),
        (["list", "-o", "embedder=nonsense"], "no embedder 'nonsense'"),
        (["list", "--path", ":memory:"], "path"),
        (["list", "--cursor", "forged"], "cursor"),
        (["add", " "], "blank"),
        (["delete"], "either one ID, or --all"),
        (["delete", "--all"], "--yes"),
        (["update", "some-id"], "nothing to change"),
        (["update", "some-id", "--clear", "content"], "cannot be emptied"),
        (["import", "/no/such/file"], "No such file"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_wrong(cli: Run, arguments: list[str], said: str) -> None:
    ended = cli(*arguments)
    assert ended.status == 2
    assert ended.out == ""
    assert said in ended.err
    assert len(ended.err.splitlines()) <= 2
    as_json = cli(*arguments, "--json")
    assert as_json.status == 2
    assert as_json.error["code"] == "invalid_request"


def test_a_missing_user_or_package_is_named(cli: Run, faulty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = cli("list", "-p", "broken")
    assert (ended.status, "pip install 'faulty[broken]'" in ended.err) == (7, True)
    monkeypatch.delenv("OPENPROTO_USER")
    for command in ("list", "search x", "context x", "audit", "add x", "export"):
        ended = cli(*command.split())
        assert (ended.status, "--user" in ended.err) == (2, True)


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from openproto.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.returncode == Exit.MISSING
    assert "pip install 'openproto[cli]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert Exit.MISSING == package._MISSING


@pytest.mark.usefixtures("faulty")
def test_a_bug_is_1_without_traceback_or_content_unless_debug(cli: Run) -> None:
    ended = cli("list", "-p", "faulty", "-o", "code=bug")
    assert ended.status == 1
    assert "KeyError" in ended.err
    assert "secret" not in ended.err
    assert "Traceback" not in ended.err
    assert cli("list", "-p", "faulty", "-o", "code=bug", "--json").error["code"] == "internal_error"
    assert "Traceback" in cli("list", "-p", "faulty", "-o", "code=bug", "--debug").err


@pytest.mark.usefixtures("faulty")
@pytest.mark.parametrize("extra", [[], ["--json"], ["--debug"]])
def test_no_secret_is_ever_printed(cli: Run, extra: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["-p", "faulty", "-o", "code=unauthorized", "-o", "when=open", *extra]
    url = "postgresql://me:p%40ss-word@host:1/db?password=qu-ery"
    for given in (["--url", url], ["-o", f"url={url}"]):
        for command in ("list", "doctor"):
            ended = cli(command, *arguments, *given, "-o", "api_key=sk-12345")
            said = ended.out + ended.err
            assert ended.status == 4
            assert "it failed: ***" in said
            assert not any(secret in said for secret in ("p%40ss", "p@ss", "qu-ery", "sk-12345"))
    monkeypatch.setenv("OPENPROTO_URL", url)
    monkeypatch.setenv("OPENPROTO_API_KEY", "sk-12345")
    for command in ("list", "doctor"):
        ended = cli(command, *arguments)
        assert not any(secret in ended.out + ended.err for secret in ("p%40ss", "p@ss", "qu-ery", "sk-12345"))


def test_a_reader_that_leaves_is_met_with_silence(run: Run, tmp_path: Path) -> None:
    lines = "".join(f'{{"content": "memory number {n} {"x" * 200}", "user_id": "ada"}}\n' for n in range(3000))
    assert run("import", "-", stdin=lines).status == 0
    for command in (["export"], ["list", "--limit", "500"], ["list", "--limit", "500", "--json"]):
        process = subprocess.Popen([*PROGRAM, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout
        assert process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert b"Traceback" not in (said := process.stderr.read())
        assert b"Broken" not in said
        assert b"error" not in said
        process.stderr.close()
        assert process.wait(30) == 0


@pytest.mark.parametrize("command", [["list"], ["export"], ["--help"]])
def test_a_reader_that_had_left_already_is_too(cli: Run, command: list[str]) -> None:
    # So little is printed that it waits in a buffer; unless that is dropped, the interpreter complains at its end.
    cli("add", "x")
    read, write = os.pipe()
    os.close(read)
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run([*PROGRAM, *command], stdout=write, stderr=subprocess.PIPE, timeout=30, env=environment)
        assert done.returncode == 0
        assert b"Broken" not in done.stderr
    os.close(write)


def holds(pid: int, path: Path) -> bool:
    """Whether a process has the file open."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            if descriptor.samefile(path):
                return True
    return False


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_an_interrupt_is_130_and_one_line(extra: list[str], environment: Path) -> None:
    # Another process holds the lock, so the command waits until it is interrupted.
    import sqlite3

    subprocess.run([*PROGRAM, "add", "x"], check=True, capture_output=True)
    holder = sqlite3.connect(environment, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    process = subprocess.Popen([*PROGRAM, "add", "y", *extra], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not holds(process.pid, environment):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    holder.close()
    assert process.returncode == 130
    assert out == b""
    assert len(err.splitlines()) == 1
    assert b"interrupted" in err


def test_help_imports_no_backend_and_no_settings() -> None:
    program = (
        "import sys; from openproto.cli import main; main(['search', '--help']); "
        "print([m for m in ('pydantic_settings', 'sqlite3', 'asyncpg', 'numpy', 'wordllama', 'httpx') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
