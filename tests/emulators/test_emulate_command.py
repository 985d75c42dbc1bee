"""`openproto emulate`, and `openproto conformance --emulated`."""

from __future__ import annotations

import json
import re
import signal
import socket
from pathlib import Path
from typing import Any, get_args

import httpx
import openproto_conformance.emulators.registry as emulators
import pytest
from openproto_conformance.emulators import Fault
from openproto_conformance.emulators.memsy import Memsy
from openproto_conformance.verify import read_reports

from openproto.cli import main

DOCUMENTATION = Path(__file__).parents[2] / "docs/emulators.md"


def test_it_says_where_it_is_in_text_that_can_be_pasted_and_ctrl_c_ends_it(start_python: Any) -> None:
    program = "import sys; from openproto.cli import main; sys.exit(main(['emulate', 'supermemory', *sys.argv[1:]]))"
    plain, verbose = start_python(program), start_python(program, "--json", "--verbose")
    start = json.loads(verbose.stdout.readline())
    assert start["provider_options"] == {"base_url": start["url"], "api_key": "emulated-api-key"}
    assert start["checked_against"].startswith("unchecked: OPENPROTO_SPECS names no folder with supermemory-")
    assert httpx.get(f"{start['url']}/namespaces", trust_env=False).status_code == 401
    assert json.loads(verbose.stdout.readline()) == {"method": "GET", "path": "/namespaces", "status": 401}
    lines = [plain.stdout.readline() for _ in range(3)]
    assert lines[0].startswith("supermemory at http://127.0.0.1:")
    assert lines[1].startswith("openproto doctor --provider supermemory --option base_url=http://127.0.0.1:")
    assert lines[2].startswith('AsyncMemory("supermemory", base_url=\'http://127.0.0.1:')
    for process, told in ((plain, "Ctrl-C ends it.\n"), (verbose, "")):
        process.send_signal(signal.SIGINT)
        assert (*process.communicate(timeout=10), process.returncode) == ("", told, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["emulate"], "there are: "),
        (["emulate", "supermemori"], "did you mean 'supermemory'"),
        (["emulate", "supermemory", "--port", "{taken}"], "cannot be had"),
        (["conformance", "sqlite", "--emulated"], "no emulator 'sqlite'"),
        (["conformance", "--emulated"], "no emulator ''"),
        (["conformance", "matrix", "--emulated", "x.json"], "no other option"),
    ],
)
def test_wrong_usage_is_2(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        assert main([argument.format(taken=taken) for argument in arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return the exit status of the suite on an emulator, its report, and what was said."""
    monkeypatch.chdir(tmp_path)

    def run(name: str) -> tuple[int, Any, str]:
        status = main(["conformance", name, "--emulated", "--quick", "--only", "ingestion", "--report", "r.json"])
        (report,) = read_reports(Path("r.json"))
        return status, report, capsys.readouterr().err

    return run


@pytest.mark.parametrize("name", emulators.EMULATORS)
def test_the_suite_tries_nine_verbs_of_each_vendor(name: str, tried: Any) -> None:
    _, report, said = tried(name)
    assert (report.problem, len(report.verbs), "broke" in said) == (None, 9, False), said
    assert {entry.outcome for entry in report.cases if entry.area == "ingestion"} <= {"passed", "refused"}


def test_an_emulator_that_is_wrong_fails_the_suite(tried: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulators, "emulator_class", lambda name: type("Wrong", (Memsy,), {"ingest": lambda *_: 1 / 0}))
    status, _, said = tried("memsy")
    assert (status, "the memsy emulator broke the vendor's document: POST /v1/ingest: " in said) == (1, True), said


def test_the_program_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), re.DOTALL)
    exec(program, {})
    assert capsys.readouterr().out.startswith("0 requests, 0 in flight")


def test_the_documentation_has_every_emulator_and_every_fault() -> None:
    text = DOCUMENTATION.read_text(encoding="utf-8")
    assert [name for name in emulators.EMULATORS if f"| `{name}` |" not in text] == []
    assert [fault.__name__ for fault in get_args(Fault) if f"| `{fault.__name__}(" not in text] == []
