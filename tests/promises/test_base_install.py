"""The base install is asynchronous already: nothing but the direct dependencies, and what those need themselves."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]

PROGRAM = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
import openproto
from openproto import AsyncMemory, Memory

async def main():
    async with AsyncMemory("sqlite", path=sys.argv[2], embedder="none") as memory:
        await asyncio.gather(*(memory.add(f"note {n}", user_id="ada") for n in range(3)))
        print(len(await memory.search("note", "ada")))

asyncio.run(main())
with Memory("sqlite", path=sys.argv[2], embedder="none") as memory:
    print(len(memory.list("ada").items))
print(openproto.__file__.startswith(sys.argv[1]))
try:
    AsyncMemory("passthrough", base_url="http://127.0.0.1:1")
except ImportError as error:
    print(error)
"""


def needed(requirements: list[str], seen: set[str]) -> set[str]:
    """Return the distributions that the requirements bring along, themselves included."""
    for line in requirements:
        requirement = Requirement(line)
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name not in seen and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            seen.add(name)
            needed(distribution(name).requires or [], seen)
    return seen


@pytest.mark.promise(79)
def test_async_needs_no_extra_and_asking_for_one_does_no_harm(tmp_path: Path) -> None:
    site = tmp_path / "site"
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check")
    command = [sys.executable, "-m", "pip", "install", *options, "--target", site, f"{ROOT}[async]"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    # Next to it stand links to its base dependencies only.
    base = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    lent = Path(sysconfig.get_path("purelib"))
    files = [file for name in needed(base, set()) for file in distribution(name).files or []]
    for top in {file.parts[0] for file in files} - {".."}:
        if not (site / top).exists():
            (site / top).symlink_to(lent / top)
    # -S keeps what else is installed here out of reach.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, site, tmp_path / "memory.db"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found, listed, installed, missing = ran.stdout.splitlines()
    assert (found, listed, installed) == ("3", "3", "True")
    assert "pip install 'openproto[passthrough]'" in missing
