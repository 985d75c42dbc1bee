"""The example of a third party's backend, installed by itself and certified with the published commands only."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/acme-memory"
# What ends before it can be interrupted or overtaken is not seen, and how often that is depends on the machine.
CERTIFIED = re.compile(r"^acme: conforms · 7/9 verbs · cancellation native( · \d+ unseen)? · quick$", re.MULTILINE)
VERBS = ["add", "search", "context", "get", "list", "delete", "capabilities"]


class Room:
    """A fresh virtual environment with the project and the example in it, and a copy of the example to work in."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "venv/bin"
        self.work = folder / "acme-memory"
        shutil.copytree(EXAMPLE, self.work, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=60)
        # The libraries are lent, not installed again; the editable project among them cannot be reached this way.
        (site,) = (folder / "venv/lib").glob("python*/site-packages")
        (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
        options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
        self.run(self.bin / "python", "-m", "pip", "install", "--ignore-installed", *options, ROOT, self.work, status=0)

    def run(self, *command: str | Path, status: int) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
        done = subprocess.run(command, cwd=self.work, env=kept, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    return Room(tmp_path_factory.mktemp("room"))


def test_it_is_installed_found_and_certified(room: Room) -> None:
    where = room.run(room.bin / "python", "-c", "import openproto; print(openproto.__file__)", status=0)
    assert where.startswith(str(room.bin.parent)), "the project under test is the one that was installed"
    assert "acme\tacme-memory 1.0.0\tready" in room.run(room.bin / "openproto", "providers", status=0)
    said = room.run(room.bin / "openproto", "conformance", "acme", "--quick", "--report", "report.json", status=0)
    assert CERTIFIED.search(said)
    (report,) = json.loads((room.work / "report.json").read_text())["reports"]
    assert (report["verdict"], report["provider_version"], report["verbs"]) == ("conforms", "1.0.0", VERBS)
    assert {"passed", "refused"} <= set(report["tally"]) <= {"passed", "refused", "nonstrict", "unseen"}
    assert "| verbs | 7/9 |" in room.run(room.bin / "openproto", "conformance", "matrix", "report.json", status=0)


def test_its_own_tests_are_the_suite(room: Room) -> None:
    plugins = ("-p", "no:cacheprovider", "-p", "no:asyncio")  # lent with the libraries; the suite needs neither
    said = room.run(room.bin / "python", "-m", "pytest", "-q", "--openproto-quick", "-k", "basics", *plugins, status=0)
    assert "acme: incomplete · 7/9 verbs" in said
