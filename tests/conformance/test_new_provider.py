"""What the author of a provider meets: a package that conforms from the start, the pytest plugin, and its options."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from openproto_conformance import run

from openproto.cli import main

EVERY_DAY = ("basics", "idempotency", "isolation", "histories_of_everything")


@pytest.mark.parametrize("base", ["emulated", "provider"])
@pytest.mark.parametrize("only", [EVERY_DAY, pytest.param((), marks=pytest.mark.full)])
def test_what_it_writes_conforms(base: str, only: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-provider", "my-notes", "--base", base]) == 0
    folder = tmp_path / "my-notes-memory"
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "my_notes_memory", raising=False)
    package = importlib.import_module("my_notes_memory")
    report = run(lambda: package.MyNotes(str(tmp_path / "notes.db")), quick=True, only=only)
    assert report.verdict == ("incomplete" if only else "conforms"), report.to_markdown()
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["openproto.providers"] == {"my-notes": "my_notes_memory:MyNotes"}
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length", "120", "--select", "E,F,I,UP,B"]
    subprocess.run([*ruff, str(folder)], check=True, timeout=60)
    assert "class TestMyNotes(ProviderSuite)" in (folder / "tests/test_my_notes_memory.py").read_text()
    assert "openproto conformance my-notes" in (folder / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sqlite"], "installed already"),
        (["Acme"], "cannot be a provider's name"),
        (["../acme"], "cannot be a provider's name"),
        (["class"], "cannot be a provider's name"),
        (["acme", "--folder", "."], "is there already"),
        (["acme", "--base", "magic"], "magic"),
        ([], "NAME"),
    ],
)
def test_wrong_usage_is_2_and_writes_nothing(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-provider", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


SUITE = """
import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import ProviderSuite

{mark}
class TestAcme(ProviderSuite):
    deviations = {deviations}

    def provider(self):
        return Sqlite({path!r}, embedder="none")
"""


REPORT = ("--openproto-report", "report.json")
NODE = "test_acme.py::TestAcme::test_conforms[basics/a_new_user_has_nothing[async]]"
AUTO = ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


DEVIATES = {"deviations": '{"what_was_added_is_found": "ACME-12"}'}
ONE_CASE = ("-k", "what_was_added_is_found")


@pytest.mark.parametrize(
    ("suite", "arguments", "status", "said", "tally"),
    [
        ({}, (*ONE_CASE, "--openproto-quick", "-p", "no:asyncio"), 0, "sqlite: incomplete · 9/9 verbs · ", None),
        ({}, (NODE, "--openproto-quick", *REPORT, *AUTO), 1, "were not run", {"missing", "passed"}),
        ({"mark": "@pytest.mark.skip"}, (*REPORT, *AUTO), 1, "were not run", {"missing"}),
        (None, (*REPORT, *AUTO), 1, "no ProviderSuite was collected", None),
        ({}, ("--openproto-report", "no/such/r.json", *AUTO), 4, "no/such/r.json cannot be written", None),
        (DEVIATES, (*ONE_CASE, *AUTO), 1, "remove the entry", None),
    ],
)
def test_a_run_is_green_only_where_nothing_is_missing_from_its_report(
    suite: dict[str, str] | None, arguments: Any, status: int, said: str, tally: set[str] | None, tmp_path: Path
) -> None:
    """In a folder outside of this repository, warnings as errors, in pytest-asyncio's auto mode or without it."""
    options = {"mark": "", "deviations": "{}", "path": str(tmp_path / "memory.db")} | (suite or {})
    text = "def test_nothing(): pass\n" if suite is None else SUITE.format(**options)
    (tmp_path / "test_acme.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stdout
    assert said in done.stdout + done.stderr
    if tally is not None:
        (report,) = json.loads((tmp_path / "report.json").read_text())["reports"]
        assert (report["verdict"], report["tally"].keys()) == ("incomplete", tally)


def test_the_plugin_imports_nothing_heavy() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import openproto_conformance.plugin
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
assert loaded <= {"openproto_conformance"}, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
