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


class Project:
    """A folder with a suite in it, outside of this repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self.write()

    def write(self, mark: str = "", deviations: str = "{}") -> None:
        path = str(self.folder / "memory.db")
        (self.folder / "test_acme.py").write_text(SUITE.format(mark=mark, deviations=deviations, path=path))

    def pytest(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run pytest, warnings as errors, in pytest-asyncio's auto mode unless that plugin is off."""
        if "no:asyncio" not in arguments:
            arguments += ("-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_selection_is_green_without_a_report(project: Project) -> None:
    done = project.pytest("-k", "what_was_added_is_found", "--openproto-quick", "-p", "no:asyncio")
    assert done.returncode == 0, done.stdout
    assert "sqlite: incomplete · 9/9 verbs · cancellation native · quick" in done.stdout


def test_a_selection_with_a_report_is_not_green(project: Project) -> None:
    node = "test_acme.py::TestAcme::test_conforms[basics/a_new_user_has_nothing[async]]"
    done = project.pytest(node, "--openproto-quick", "--openproto-report", "report.json")
    assert done.returncode == 1, done.stdout
    (report,) = json.loads(project.report.read_text())["reports"]
    assert (report["verdict"], report["tally"]["passed"]) == ("incomplete", 1)
    assert "were not run" in done.stdout


def test_a_skipped_suite_is_missing(project: Project) -> None:
    project.write(mark="@pytest.mark.skip")
    done = project.pytest("--openproto-report", "report.json")
    assert done.returncode == 1, done.stdout
    (report,) = json.loads(project.report.read_text())["reports"]
    assert set(report["tally"]) == {"missing"}


def test_a_report_without_a_suite_is_not_green(project: Project) -> None:
    (project.folder / "test_acme.py").write_text("def test_nothing(): pass\n")
    done = project.pytest("--openproto-report", "report.json")
    assert done.returncode == 1, done.stdout
    assert "no ProviderSuite was collected" in done.stdout


def test_a_report_that_cannot_be_written_is_named_first(project: Project) -> None:
    done = project.pytest("--openproto-report", "no/such/folder/report.json")
    assert done.returncode == 4, done.stdout
    assert "no/such/folder/report.json cannot be written" in done.stderr


def test_a_stale_deviation_fails(project: Project) -> None:
    project.write(deviations='{"what_was_added_is_found": "ACME-12"}')
    done = project.pytest("-k", "what_was_added_is_found")
    assert done.returncode == 1, done.stdout
    assert "remove the entry" in done.stdout


def test_the_plugin_imports_nothing_heavy() -> None:
    program = """
import sys, pytest
before = set(sys.modules)
import openproto_conformance.plugin
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
assert loaded <= {"openproto_conformance"}, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
