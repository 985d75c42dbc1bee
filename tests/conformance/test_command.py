"""`openproto conformance`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from openproto_conformance.execute import ALL_WORK
from openproto_conformance.markers import END, START
from openproto_conformance.verify import read_reports

from openproto.cli import main

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, "-W", "error", "-m", "openproto.cli", "conformance"]
SMALL = ("embedder=none", "synchronous=normal", "--only", "ingestion", "--quick", "--patience", "20")
TRIED = 6

Ended: TypeAlias = "subprocess.CompletedProcess[str]"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("OPENPROTO_", "PG")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def call(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(["conformance", *arguments])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, status, said.out, said.err)

    return call


def run(*arguments: str) -> Ended:
    """Try a part of the suite in another process, where no thread that an earlier test left can end meanwhile."""
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=120)


def test_a_part_of_the_suite_is_incomplete_and_1() -> None:
    ended = run("sqlite", *SMALL, "--report", "one", "--no-times")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1] == "sqlite: incomplete · 9/9 verbs · cancellation native · quick"
    assert f"{len(ALL_WORK) - TRIED} of {len(ALL_WORK)} cases were not tried" in ended.stdout
    assert "✓\tingestion\t6\t6" in ended.stdout
    assert f"[{TRIED}/{TRIED}] ingestion: {TRIED} passed" in ended.stderr
    (report,) = read_reports(Path("one"))
    assert report.tally == {"missing": len(ALL_WORK) - TRIED, "passed": TRIED}
    again = run("sqlite", *SMALL, "--report", "two", "--no-times", "--json")
    assert (json.loads(again.stdout)["reports"][0]["verdict"], again.stderr) == ("incomplete", "")
    shared = run("sqlite", *SMALL, "--report", "three", "--no-times", "--processes", "2")
    assert f"[{TRIED}/{TRIED}] ingestion: {TRIED} passed" in shared.stderr
    assert Path("one").read_bytes() == Path("two").read_bytes() == Path("three").read_bytes()


def test_threads_of_the_program_that_calls_it_may_run_on(cli: Callable[..., Ended]) -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert cli("sqlite", "embedder=none", "--only", "what_was_added_is_found", "--quick").returncode == 1
    finally:
        ended.set()
        thread.join()


def test_a_failing_case_says_where_to_look() -> None:
    ended = run("sqlite", *SMALL, "--deviation", "what_was_added_is_found[async]=ACME-12")
    assert ended.returncode == 1
    for said in ("✗ what_was_added_is_found[async] failed:", "remove the entry", "look at: the time between"):
        assert said in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("sqlite: fails")
    assert run("sqlite", *SMALL, "--markdown").stdout.startswith("**sqlite**: incomplete")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which backend?"),
        (["sqlit"], "did you mean 'sqlite'"),
        (["sqlite", "pth=x"], "did you mean 'path'"),
        (["sqlite", "no-equals-sign"], "name=value"),
        (["sqlite", "lock_timeout=long"], "lock_timeout"),
        (["sqlite", "retries=3"], "option of the client"),
        (["sqlite", "--timeout", "3"], "deadlines"),
        (["sqlite", "--only", "cancelation"], "no area or case 'cancelation'; did you mean 'cancellation'"),
        (["sqlite", "--only", "xyzzy", "--report", "report.json"], "no area or case 'xyzzy'; areas: basics,"),
        (["sqlite", "--audit", "sqlite:///audit.db"], "keeps an audit log already"),
        (["sqlite", "--deviation", "the_least_is_thre=why"], "did you mean 'the_least_is_there'? The cases"),
        (["sqlite", "--deviation", "no reason"], "name=value"),
        (["sqlite", "--deviation", "what_was_added_is_found= "], "needs a reason"),
        (["sqlite", "--report", "no/such/folder/report.json"], "cannot be written"),
        (["sqlite", "--report", "."], "cannot be written"),
        (["sqlite", "embedder=nonsense", "--only", "ingestion"], "no embedder 'nonsense'"),
        (["memsy", "api_key=correct-horse", "--processes", "2"], "a store of its own"),
        (["sqlite", "--seed", "-1"], "--seed"),
        (["sqlite", "--seed", "often"], "--seed"),
        (["sqlite", "--write", "README.md"], "--write goes with matrix"),
        (["matrix"], "at least one report"),
        (["matrix", "missing.json"], "No such file"),
        (["verify"], "wants a report"),
        (["verify", "missing.json"], "No such file"),
        (["verify", "--quick", "missing.json"], "go with --again"),
        (["sqlite", "--again"], "--again goes with verify"),
        (["matrix", "--quick", "missing.json"], "no other option"),
    ],
)
def test_wrong_usage_is_2_and_runs_nothing(cli: Callable[..., Ended], arguments: list[str], said: str) -> None:
    Path("report.json").write_text("older")
    ended = cli(*arguments)
    assert (ended.returncode, ended.stdout, Path("report.json").read_text()) == (2, "", "older")
    assert said in ended.stderr


def test_a_missing_package_is_7(run_python: Any) -> None:
    program = "import sys; sys.modules['anyio'] = None; from openproto.cli import main; sys.exit(main(sys.argv[1:]))"
    done = run_python(program, "conformance", "sqlite")
    assert done.returncode == 7, done.stderr
    assert "pip install 'openproto[conformance]'" in done.stderr


@pytest.mark.parametrize("option", ["connect_timeout=1", "connect_timeout=60"])
def test_a_half_open_backend_ends_in_bounded_time(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:  # which accepts connections and never answers
        url = f"url=postgresql://me:correct-horse@127.0.0.1:{silent.getsockname()[1]}/db"
        done = run("postgres", url, "embedder=none", option, "--report", "report.json")
    assert done.returncode == 1, done.stderr
    assert "problem: the provider could not be opened" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("postgres: fails")
    (report,) = read_reports(Path("report.json"))
    assert (report.verdict, report.tally) == ("fails", {"missing": len(ALL_WORK)})
    assert "correct-horse" not in done.stdout + done.stderr + Path("report.json").read_text()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_130_and_what_was_not_tried_is_missing(sent: signal.Signals) -> None:
    command = [*PROGRAM, "sqlite", "embedder=none", "--report", "report.json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    while "] basics:" not in process.stderr.readline():
        assert process.poll() is None
    (kept,) = read_reports(Path("report.json"))
    assert kept.tally["missing"] < len(ALL_WORK), "it is written after each area"
    os.kill(process.pid, sent)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert ("interrupted" in err, "Traceback" in err, "cases were not tried" in out) == (True, False, True)
    (report,) = read_reports(Path("report.json"))
    assert report.exit_status == 1
    assert report.tally["missing"] > len(ALL_WORK) / 2
    assert report.tally["passed"] >= 20


def test_on_a_terminal_there_is_a_bar_and_a_table() -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([*PROGRAM, "sqlite", *SMALL], stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side has closed
        while chunk := os.read(master, 65536):
            shown += chunk
    os.close(master)
    assert process.wait(30) == 1
    assert f"{TRIED}/{TRIED}" in shown.decode()
    assert "not kept" in shown.decode()


def test_the_matrix_of_reports_is_printed_or_written_between_its_markers(cli: Callable[..., Ended]) -> None:
    run("sqlite", *SMALL, "--report", "a.json")
    shutil.copy("a.json", "b.json")
    document, reports = Path("README.md"), ("a.json", "b.json")
    document.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    ended = cli("matrix", *reports)
    assert ended.returncode == 1, "the status of the worst report"
    assert "| ingestion | ✓ 6/6 | ✓ 6/6 |" in ended.stdout
    assert cli("matrix", *reports, "--write", "README.md").stdout == ""
    text = document.read_text()
    assert re.fullmatch(rf"before\n{START}\n\| .*\|\n{END}\nafter\n", text, re.DOTALL)
    assert "old" not in text
    cli("matrix", *reports, "--write", "README.md")
    assert document.read_text() == text
    for wrong in ("", START, f"{END}{START}", f"{START}{END}{START}"):
        document.write_text(wrong)
        assert cli("matrix", *reports, "--write", "README.md").returncode == 2
        assert document.read_text() == wrong, "a document without the markers is left alone"


def test_a_broken_plugin_breaks_no_command(tmp_path: Path) -> None:
    info = tmp_path / "site/broken-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[openproto.commands]\nbroken = no_such_module\n")
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(info.parent)}
    command = [sys.executable, "-m", "openproto.cli", "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "the commands of broken cannot be loaded (ModuleNotFoundError)" in done.stderr
    assert done.stdout.startswith("openproto ")
