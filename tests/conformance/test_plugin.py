"""The pytest plugin as a third party meets it: a file with one class, and the options of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("suite", "arguments", "status", "said", "tally"),
    [
        (
            {},  # a selection is green without a report
            ("-k", "what_was_added_is_found", "--openproto-quick", "-p", "no:asyncio"),
            0,
            "sqlite: incomplete · 9/9 verbs · cancellation native · quick",
            None,
        ),
        ({}, (NODE, "--openproto-quick", *REPORT, *AUTO), 1, "were not run", {"missing", "passed"}),
        ({"mark": "@pytest.mark.skip"}, (*REPORT, *AUTO), 1, "were not run", {"missing"}),
        (None, (*REPORT, *AUTO), 1, "no ProviderSuite was collected", None),
        ({}, ("--openproto-report", "no/such/r.json", *AUTO), 4, "no/such/r.json cannot be written", None),
        (
            {"deviations": '{"what_was_added_is_found": "ACME-12"}'},
            ("-k", "what_was_added_is_found", *AUTO),
            1,
            "remove the entry",
            None,
        ),
    ],
)
def test_a_run_is_green_only_where_nothing_is_missing_from_its_report(
    suite: dict[str, str] | None,
    arguments: tuple[str, ...],
    status: int,
    said: str,
    tally: set[str] | None,
    tmp_path: Path,
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
