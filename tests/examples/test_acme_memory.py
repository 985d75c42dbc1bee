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

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/acme-memory"
# What ends before it can be interrupted or overtaken is not seen, and how often that is depends on the machine.
CERTIFIED = re.compile(r"^acme: conforms · 7/9 verbs · cancellation native( · \d+ unseen)? · quick$", re.MULTILINE)
VERBS = ["add", "search", "context", "get", "list", "delete", "capabilities"]


def test_it_is_installed_found_and_certified_and_its_own_tests_are_the_suite(tmp_path: Path) -> None:
    bin, work = tmp_path / "venv/bin", tmp_path / "acme-memory"

    def run(*command: str | Path) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
        done = subprocess.run([bin / command[0], *command[1:]], cwd=work, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    shutil.copytree(EXAMPLE, work, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    # The libraries are lent, not installed again; the editable project among them cannot be reached this way.
    (site,) = (tmp_path / "venv/lib").glob("python*/site-packages")
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    run("python", "-m", "pip", "install", "--ignore-installed", *options, ROOT, work)
    where = run("python", "-c", "import openproto; print(openproto.__file__)")
    assert where.startswith(str(bin.parent)), "the project under test is the one that was installed"
    assert "acme\tacme-memory 1.0.0\tready" in run("openproto", "providers")

    said = run("openproto", "conformance", "acme", "--quick", "--report", "report.json")
    assert CERTIFIED.search(said)
    (report,) = json.loads((work / "report.json").read_text())["reports"]
    assert (report["verdict"], report["provider_version"], report["verbs"]) == ("conforms", "1.0.0", VERBS)
    assert {"passed", "refused"} <= set(report["tally"]) <= {"passed", "refused", "nonstrict", "unseen"}
    assert "| verbs | 7/9 |" in run("openproto", "conformance", "matrix", "report.json")

    plugins = ("-p", "no:cacheprovider", "-p", "no:asyncio")  # lent with the libraries; the suite needs neither
    said = run("python", "-m", "pytest", "-q", "--openproto-quick", "-k", "basics", *plugins)
    assert "acme: incomplete · 7/9 verbs" in said
