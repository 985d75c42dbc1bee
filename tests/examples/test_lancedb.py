"""The example on LanceDB, installed into a fresh environment with the published packages, and certified there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.installs
def test_lancedb_conforms(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    bin = tmp_path / "venv/bin"
    example = ROOT / "examples/openproto-lancedb"
    packages = [f"{ROOT}[cli,conformance]", str(example)]
    subprocess.run([bin / "python", "-m", "pip", "install", "--quiet", *packages], check=True, timeout=900)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENPROTO_", "PYTHON"))}
    command = [bin / "openproto", "conformance", "lancedb", "--quick"]
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("lancedb: conforms · 8/9 verbs")
