"""`make test-pythons`: the core, both stores, and the suite on each Python that is found, in environments of their own.

With `--short`, what `.ci/run` has time for.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
MINORS = (11, 12, 13, 14)
EXTRAS = "embedded,encryption,sqlite,cli,local,server,conformance"
SHORT = ["tests/core", "tests/sqlite", "tests/conformance/test_stores_conform.py"]
FULL = ["tests/core", "tests/sqlite", "tests/postgres", "tests/stores", "tests/conformance/test_stores_conform.py"]
WITHOUT = [  # these want the SDKs and frameworks that `make test` has
    "--ignore=tests/core/test_numbers_of_constructors.py",
    "--ignore=tests/postgres/test_process_ends.py",
    "--deselect=tests/core/test_input_limits.py::test_message_objects_of_the_sdks_are_messages",
]


def find(minor: int) -> Path | None:
    """Return a Python 3.`minor` that works: of pyenv's versions the newest, else the one on the PATH."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    versions = sorted(root.glob(f"versions/3.{minor}.*"), key=lambda folder: [*map(int, folder.name.split("."))])
    for python in (*(folder / "bin/python" for folder in reversed(versions)), Path(f"python3.{minor}")):
        try:
            told = subprocess.run([python, "-c", "import sys; print(sys.version_info[1])"], capture_output=True)
        except OSError:
            continue
        if told.stdout.split() == [str(minor).encode()]:
            return python
    return None


def install(python: Path, minor: int) -> Path:
    """Return the interpreter of an environment that has what the tests need."""
    inside = ROOT / f".venv-3.{minor}/bin/python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", inside.parents[1]], check=True)
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    for wanted in (["--upgrade", "pip"], ["--group", "on-pythons", "--editable", f".[{EXTRAS}]"]):
        subprocess.run([*pip, "--constraint", "constraints.txt", *wanted], check=True, cwd=ROOT)
    return inside


def main(arguments: list[str]) -> int:
    """Try each Python but the running one; return 0 if the tests pass on all that were found."""
    chosen = SHORT if "--short" in arguments else FULL
    failed: list[str] = []
    found = {minor: find(minor) for minor in MINORS if minor != sys.version_info[1]}
    there = {minor: python for minor, python in found.items() if python is not None}
    for minor in sorted(found.keys() - there.keys()):
        print(f"Python 3.{minor} is not on this machine and is not tried", flush=True)
    with ThreadPoolExecutor() as pool:
        installed = dict(zip(there, pool.map(install, there.values(), there), strict=True))
    for minor, python in installed.items():
        print(f"Python 3.{minor}: {there[minor]}", flush=True)
        command = [str(python), "-m", "pytest", "-q", "-n", "3", "--dist", "loadscope"]
        wanted = ["--openproto-quick", "-m", "not pgbouncer and not operating and not installs and not full", *WITHOUT]
        if subprocess.run([*command, *wanted, *chosen], cwd=ROOT).returncode:
            failed.append(f"3.{minor}")
    print(f"the tests fail on Python {', '.join(failed)}" if failed else "the tests pass on each Python that was found")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
