"""Makes one fault after another in a copy of the repository; a test must fail for each. `make test-mutations` runs it.

`python -m mutations [WORD...]` tries the faults whose file or tests contain one of the words, and without any all.
Those of `suite.toml` are tried against the conformance suite alone: `python -m mutations test_stores_conform`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PACKAGES = (".", "adapters", "conformance")
SELECTED = "not full and not installs and not pgbouncer"
"""The tests that `make test` runs."""
NO_TESTS_FAILED = 0
TESTS_FAILED = 1
WITHIN = 1800.0
"""Seconds for one fault; some make a test hang, which counts as noticed."""


class Mutation(NamedTuple):
    """One fault, and the arguments of pytest that name the tests of which one must fail."""

    file: str
    old: str
    new: str
    tests: str

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()[:60]}"


def main(*words: str) -> int:
    """Try the faults and return how many no test noticed."""
    chosen = [Mutation(**entry) for entry in read_table("table.toml")]
    chosen += [Mutation(**entry, tests=suite_on(entry["file"])) for entry in read_table("suite.toml")]
    if words:
        chosen = [one for one in chosen if any(word in f"{one.file} {one.tests}" for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="openproto-mutations-") as folder:
        copy = Path(folder)
        copy_repository(copy)
        for mutation in chosen:
            started = time.monotonic()
            outcome = attempt(mutation, copy)
            missed += outcome != "caught"
            sys.stdout.write(f"{outcome:8} {time.monotonic() - started:5.0f} s  {mutation}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - missed} of {len(chosen)} faults were caught\n")
    return missed


def read_table(name: str) -> list[dict[str, str]]:
    """Return the faults of a table."""
    entries: list[dict[str, str]] = tomllib.loads(Path(__file__).with_name(name).read_text("utf-8"))["mutation"]
    return entries


def suite_on(file: str) -> str:
    """Return the arguments that run the conformance suite, and nothing else, on the store that a file belongs to."""
    store = "TestSqlite" if "/sqlite/" in file else "TestPostgres"
    return f"tests/conformance/test_stores_conform.py --openproto-quick -k {store}"


def copy_repository(target: Path) -> None:
    """Copy the files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (source := ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(source.read_bytes())


def attempt(mutation: Mutation, root: Path) -> str:
    """Return `caught`, `escaped`, `stale` where the file has changed since, or `broken` where pytest could not run."""
    path = root / mutation.file
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    if whole.count(mutation.old) != 1:
        return "stale"
    path.write_text(whole.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        status = run_tests(mutation.tests, root)
    except subprocess.TimeoutExpired:
        return "caught"
    finally:
        path.write_text(whole, encoding="utf-8")
    return {NO_TESTS_FAILED: "escaped", TESTS_FAILED: "caught"}.get(status, "broken")


def run_tests(tests: str, root: Path) -> int:
    """Run pytest until the first failure and return its exit status."""
    path = os.pathsep.join(str(root / package) for package in PACKAGES)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", SELECTED]
    return subprocess.run(
        [*command, *shlex.split(tests)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        timeout=WITHIN,
        check=False,
    ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
