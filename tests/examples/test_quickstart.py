"""One program, unchanged, on a file and on the hosted backends' emulators; only the environment differs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openproto_conformance.emulators.registry import emulator_class

QUICKSTART = Path(__file__).parents[2] / "examples/quickstart.py"
SAYS = ["done True", "True Ada takes her coffee black"]


def says(provider: str, home: Path, **environment: str) -> list[str]:
    vendors = ("OPENPROTO_", "LETTA_", "MEM0_", "MEMORYSYNC_", "MEMSY_", "SUPERMEMORY_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(vendors)}
    given = {"HOME": str(home), "XDG_DATA_HOME": str(home), "OPENPROTO_PROVIDER": provider, **environment}
    ran = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", QUICKSTART],
        env={**kept, **given},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


@pytest.mark.promise(8, 9, 10, 11, 33, 81)
@pytest.mark.parametrize("provider", ["letta", "mem0", "memorysync", "memsy", "supermemory"])
def test_the_quick_start_runs_as_it_stands_on_a_hosted_backend(provider: str, tmp_path: Path) -> None:
    with emulator_class(provider)() as vendor:
        options = vendor.provider_options()
        # One of the vendors has variables of its own, which are enough.
        prefix = "MEMORYSYNC" if provider == "memorysync" else "OPENPROTO"
        named = {f"{prefix}_{name.upper()}": options[name] for name in ("base_url", "api_key")}
        assert says(provider, tmp_path, **named) == SAYS
        assert vendor.violations == []


@pytest.mark.promise(93)
def test_the_quick_start_runs_as_it_stands_on_a_file_in_its_own_process(tmp_path: Path) -> None:
    assert says("sqlite", tmp_path, OPENPROTO_EMBEDDER="none", OPENPROTO_PATH=str(tmp_path / "memory.db")) == SAYS
