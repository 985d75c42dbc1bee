"""The pytest plugin: parametrises `ProviderSuite.test_conforms`, keeps the score, and writes the report.

Loaded into every pytest run of every project that has openproto installed, so it imports nothing until a suite is
collected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openproto_conformance.execute import SuiteRun
    from openproto_conformance.report import Report
    from openproto_conformance.suite import ProviderSuite

_RUNS: pytest.StashKey[dict[type, SuiteRun]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("openproto", "conformance of memory providers")
    group.addoption(
        "--openproto-report",
        metavar="FILE",
        type=Path,
        help="write the conformance report as JSON; whatever was not run makes the exit status 1",
    )
    group.addoption("--openproto-quick", action="store_true", help="run every case with less of everything")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a report that could not be written, or not be complete, before anything runs."""
    config.stash[_RUNS] = {}
    path: Path | None = config.getoption("openproto_report")
    if path is None:
        return
    if getattr(config.option, "numprocesses", None):
        raise pytest.UsageError("--openproto-report needs every case in one process: run without -n")
    try:
        path.open("a").close()
    except OSError as error:
        raise pytest.UsageError(f"--openproto-report: {path} cannot be written: {error.strerror}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `test_conforms` each case on each face."""
    if metafunc.cls is None or "openproto_work" not in metafunc.fixturenames:
        return
    # Imported here: see the module's docstring.
    from openproto_conformance.execute import ALL_WORK

    _run_of(metafunc.config, metafunc.cls)
    metafunc.parametrize("openproto_work", ALL_WORK, ids=str)


@pytest.fixture
def openproto_run(request: pytest.FixtureRequest) -> SuiteRun:
    """The score of the suite class at hand."""
    assert request.cls is not None, "openproto_run is for ProviderSuite classes"  # noqa: S101 - narrows the type
    return _run_of(request.config, request.cls)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report; a green run whose report is not green exits with 1."""
    path: Path | None = session.config.getoption("openproto_report")
    if path is None or session.config.option.collectonly:
        return
    reports = _reports(session.config)
    if reports:
        from openproto_conformance.report import write_reports

        write_reports(path, reports)
    if session.exitstatus in (0, 5) and (not reports or any(report.exit_status for report in reports)):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print each suite's verdict."""
    reports = _reports(config)
    if config.option.collectonly or not (reports or config.getoption("openproto_report")):
        return
    terminalreporter.section("openproto conformance")
    for report in reports:
        terminalreporter.line(f"{report.provider}: {report.headline}")
        if missing := report.tally.get("missing"):
            terminalreporter.line(f"  {missing} of {len(report.cases)} were not run")
        if report.problem:
            terminalreporter.line(f"  {report.problem}")
    if not reports:
        terminalreporter.line("no ProviderSuite was collected, so there is nothing to report")


def _run_of(config: pytest.Config, suite: type[ProviderSuite]) -> SuiteRun:
    from openproto_conformance.execute import SuiteRun

    quick = suite.quick or bool(config.getoption("openproto_quick"))
    return config.stash[_RUNS].setdefault(suite, SuiteRun(quick=quick, seed=suite.seed))


def _reports(config: pytest.Config) -> list[Report]:
    runs = config.stash[_RUNS]
    if not runs:
        return []
    from openproto_conformance.report import Report

    return [Report.of(run, suite.__name__) for suite, run in runs.items()]
