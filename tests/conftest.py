"""What all tests share: hypothesis without timings, Python in another process, and which cases can wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import lasting
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.configuration import set_hypothesis_home_dir
from openproto_conformance.case import FACES

RunPython: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]
StartPython: TypeAlias = Callable[..., "subprocess.Popen[str]"]

HELPERS = Path(__file__).parent / "core"
SPECS = Path(__file__).parents[2] / "shared" / "data" / "specs"

LONGEST = 1800.0
"""Seconds that a test of the full run, or one that installs packages, may take."""


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background of a shell; the programs under test would inherit that they ignore Control-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # The vendors' OpenAPI documents: what is checked against them is skipped, and says so, where they are not found.
    os.environ.setdefault("OPENPROTO_SPECS", str(SPECS))
    if getattr(config, "cache", None) is not None:
        set_hypothesis_home_dir(config.cache.mkdir("hypothesis"))
    # The machine may be busy, so no deadline; the examples are the same in every run, so no database either.
    settings.register_profile(
        "openproto", deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("openproto")
    if not hasattr(config, "workerinput"):
        lasting.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        lasting.leave_postgres()
    else:
        lasting.end_run()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Mark as `full` the cases outside of what a suite's `everyday` mark names; `make test` leaves those out.

    It names areas and cases, `faces` where not both are tried, and with `sync` the areas in which both are after all.

    What is full, or installs packages, may take longer than other tests before it counts as hanging.
    """
    for item in items:
        if chosen := item.get_closest_marker("everyday"):
            work: Any = item.callspec.params["openproto_work"]
            faces = FACES if work.case.area in chosen.kwargs.get("sync", ()) else chosen.kwargs.get("faces", FACES)
            if not {work.case.area, work.case.name}.intersection(chosen.args) or work.face not in faces:
                item.add_marker("full")
        if item.get_closest_marker("full") or item.get_closest_marker("installs"):
            item.add_marker(pytest.mark.timeout(LONGEST))


@pytest.fixture
def run_python() -> RunPython:
    """Run a program in a new process, warnings as errors; `sys.argv[1:]` holds `arguments`."""

    def run(program: str, *arguments: object, env: dict[str, str] | None = None, **options: Any) -> Any:
        options = {"capture_output": True, "text": True, "timeout": 30, **options}
        return subprocess.run(_command(program, arguments), env=_environment(env), **options)

    return run


@pytest.fixture
def start_python() -> Iterator[StartPython]:
    """Start a program like `run_python`, without waiting for it; it is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def start(program: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(_command(program, arguments), env=_environment(env), text=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _command(program: str, arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]


def _environment(extra: dict[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    path = os.pathsep.join(filter(None, [str(HELPERS), os.environ.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **(extra or {})}
