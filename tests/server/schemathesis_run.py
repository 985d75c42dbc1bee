"""Schemathesis against a running server and its own OpenAPI: `python tests/server/schemathesis_run.py [EXAMPLES]`.

Every check that Schemathesis has is made but one, "schema-valid requests are accepted": JSON Schema cannot say all of
the protocol's rules, such as that `valid_to` lies after `valid_from`. Exit status 1 when a check fails, or when the
full run makes fewer than 10,000 requests.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from server_tools import sqlite_app

from openproto.server import ServerSettings, running
from openproto.server.keys import new_key

FULL_EXAMPLES = 1000
LEAST_CASES = 10_000
ALL_PHASES = "examples,coverage,fuzzing,stateful"
REFUSALS = "[checks.negative_data_rejection]\nexpected-statuses = ['4xx']\n"
"""By default a 413 is none, which a body over the server's limit gets whatever else is wrong with it."""
PROGRAM = Path(sys.executable).with_name("schemathesis")


class Run(NamedTuple):
    ok: bool
    cases: int
    output: str

    @property
    def summary(self) -> str:
        """What failed, each line cut short, for bodies are long."""
        failures = self.output.partition("= FAILURES =")[2] or self.output[-2000:]
        return "\n".join(line[:200] for line in failures.splitlines() if line.strip())


def schemathesis(examples: int, *, with_keys: bool = False, phases: str = ALL_PHASES) -> Run:
    """Serve an empty file, with a key where wanted, and run at most so many examples for each operation and phase."""
    key, entry = new_key("schemathesis", ["*"])
    settings = ServerSettings(keys=[entry] if with_keys else [])
    with tempfile.TemporaryDirectory() as folder, running(sqlite_app(Path(folder) / "memory.db", settings)) as url:
        Path(folder, "schemathesis.toml").write_text(REFUSALS)
        done = subprocess.run(
            [
                PROGRAM,
                "run",
                f"{url}/openapi.json",
                f"--max-examples={examples}",
                f"--phases={phases}",
                "--checks=all",
                "--exclude-checks=positive_data_acceptance",
                "--generation-deterministic",
                "--no-color",
                *(["--header", f"X-API-Key: {key}"] if with_keys else []),
            ],
            capture_output=True,
            text=True,
            cwd=folder,
        )
    cases = re.search(r"([\d,]+) generated", done.stdout)
    return Run(done.returncode == 0, int(cases[1].replace(",", "")) if cases else 0, done.stdout + done.stderr)


def main() -> int:
    examples = int(sys.argv[1]) if len(sys.argv) > 1 else FULL_EXAMPLES
    run = schemathesis(examples)
    enough = run.cases >= LEAST_CASES or examples < FULL_EXAMPLES
    sys.stdout.write(f"{run.output}\n{run.cases} requests\n")
    return int(not (run.ok and enough))


if __name__ == "__main__":
    sys.exit(main())
