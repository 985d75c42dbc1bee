"""`make check-hard`: what is too long for every change. `python tests/hard [--scale 0.01] [--seed N] [PART ...]`.

Prints a line for each part and exits with status 1 when one fails; `--write` puts the table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from openproto_conformance.checks import ensure

ROOT = Path(__file__).parents[2]
sys.path += [str(ROOT / "tests" / folder) for folder in ("", "layers", "postgres", "server")]

import isolation  # noqa: E402
import killing  # noqa: E402
import mirroring  # noqa: E402
import moving  # noqa: E402
import parts  # noqa: E402
import schemathesis_run  # pyright: ignore[reportMissingImports]  # noqa: E402  found by the line above

TABLE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


class Part(NamedTuple):
    run: Callable[[random.Random, int], Coroutine[Any, Any, str]]
    size: int
    bound: str


async def schemathesis(chance: random.Random, cases: int) -> str:
    told = await asyncio.to_thread(schemathesis_run.schemathesis, max(1, cases // 12))
    ensure(told.ok, told.output[-2000:])
    return f"{told.cases:,} requests, every check passed"


PARTS: dict[str, Part] = {
    "kills": Part(killing.kills, 130, "no acknowledged memory is lost or doubled"),
    "moving": Part(moving.moving, 100_000, "after a migration and back, every field and answer is the same"),
    "mirroring": Part(mirroring.mirroring, 10_000, "the mirror has the same in the end, and p99 is within 1 ms"),
    "network": Part(parts.network, 5_000, "an answer or a typed error, in bounded time"),
    "versions": Part(parts.versions, 10_000, "the history of each key is linearizable"),
    "storm": Part(parts.storm, 45_000, "the client works afterwards, no task is left"),
    "probes": Part(parts.probes, 100_000, "an answer or a typed error"),
    "isolation": Part(isolation.isolation, 100_000, "without any one condition the database shows nothing foreign"),
    "schemathesis": Part(schemathesis, 50_000, "every answer is as its OpenAPI says"),
    "soak": Part(parts.soak, 1_800, f"less than {parts.SOAK_LIMIT} kB an operation"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/hard")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full size")
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    failed = False
    for name in given.parts or PARTS:
        part = PARTS[name]
        size = max(1, round(part.size * given.scale))
        started = time.monotonic()
        try:
            figure = asyncio.run(part.run(random.Random(f"{name}-{given.seed}"), size))
        except Exception as error:
            failed = True
            sys.stdout.write(f"{name} FAILED: {type(error).__name__}: {error}\n")
            continue
        took = f"{time.monotonic() - started:.0f} s"
        row = f"| {name} | {part.bound} | {figure} | {given.scale:g} | {datetime.now(UTC):%Y-%m-%d} | {took} |"
        sys.stdout.write(row + "\n")
        sys.stdout.flush()
        if given.write:
            _write(name, row, given.seed)
    return int(failed)


def _write(name: str, row: str, seed: int) -> None:
    """Put a row into the table in the place of the one that the part had."""
    before, _, rest = TABLE.read_text().partition(BEGIN)
    inside, _, after = rest.partition(END)
    rows = {line.split()[1]: line for line in inside.splitlines() if line.startswith("| ")} | {name: row}
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    head = f"On {machine}; seed {seed}. A scale of 1 is the full size."
    table = ["| part | what must hold | figure | scale | run on | took |", "|---|---|---|---|---|---|"]
    table += [rows[known] for known in PARTS if known in rows]
    TABLE.write_text(f"{before}{BEGIN}\n{head}\n\n" + "\n".join(table) + f"\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
