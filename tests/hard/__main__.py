"""`make check-hard`: what is too long for every change. `python tests/hard [--scale 0.01] [--seed N] [PART ...]`.

Prints a line for each part and exits with status 1 when one fails; `--write` puts the table into docs/reliability.md.
Several parts run at once, each in a process of its own; what measures a delay comes first and alone, and what mostly
waits runs beside all others.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
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
    alone: bool = False
    waits: bool = False


async def schemathesis(chance: random.Random, cases: int) -> str:
    told = await asyncio.to_thread(schemathesis_run.schemathesis, max(1, cases // 13))  # of an example come 15 requests
    ensure(told.ok and told.cases >= cases, told.summary)
    return f"{told.cases:,} requests, every check passed"


PARTS: dict[str, Part] = {
    "mirroring": Part(
        mirroring.mirroring, 10_000, "the mirror has the same in the end, and p99 is within 1 ms", alone=True
    ),
    "schemathesis": Part(schemathesis, 50_000, "every answer is as its OpenAPI says"),
    "moving": Part(moving.moving, 100_000, "after a migration and back, every field and answer is the same"),
    "soak": Part(parts.soak, 1_800, f"less than {parts.SOAK_LIMIT} kB an operation", waits=True),
    "isolation": Part(isolation.isolation, 100_000, "without any one condition the database shows nothing foreign"),
    "kills": Part(killing.kills, 130, "no acknowledged memory is lost or doubled"),
    "probes": Part(parts.probes, 100_000, "an answer or a typed error"),
    "network": Part(parts.network, 5_000, "an answer or a typed error, in bounded time"),
    "versions": Part(parts.versions, 10_000, "the history of each key is linearizable"),
    "storm": Part(parts.storm, 45_000, "the client works afterwards, no task is left"),
}
"""The longest first."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/hard")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full size")
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="how many parts run beside each other")
    given = parser.parse_args()
    names: list[str] = given.parts or list(PARTS)
    if len(names) == 1:
        return _run(names[0], given)
    return asyncio.run(_run_each(names, given))


async def _run_each(names: Sequence[str], given: argparse.Namespace) -> int:
    """Run each part in a process of its own, as many at once as were asked for; 1 where one failed."""
    slots = asyncio.Semaphore(given.at_once)

    async def run(name: str) -> bool:
        async with nullcontext() if PARTS[name].waits else slots:
            command = (sys.executable, str(Path(__file__).parent), name)
            options = (f"--scale={given.scale}", f"--seed={given.seed}")
            child = await asyncio.create_subprocess_exec(*command, *options, stdout=asyncio.subprocess.PIPE)
            told = (await child.communicate())[0].decode()
        sys.stdout.write(told)
        sys.stdout.flush()
        if given.write and child.returncode == 0:
            _write(name, told.strip(), given.seed)
        return child.returncode != 0

    failed = [await run(name) for name in names if PARTS[name].alone]
    failed += await asyncio.gather(*(run(name) for name in names if not PARTS[name].alone))
    return int(any(failed))


def _run(name: str, given: argparse.Namespace) -> int:
    """Run one part in this process and print its row."""
    part = PARTS[name]
    started = time.monotonic()
    try:
        size = max(1, round(part.size * given.scale))
        figure = asyncio.run(part.run(random.Random(f"{name}-{given.seed}"), size))
    except Exception as error:
        sys.stdout.write(f"{name} FAILED: {type(error).__name__}: {error}\n")
        return 1
    took = f"{time.monotonic() - started:.0f} s"
    row = f"| {name} | {part.bound} | {figure} | {given.scale:g} | {datetime.now(UTC):%Y-%m-%d} | {took} |"
    sys.stdout.write(row + "\n")
    if given.write:
        _write(name, row, given.seed)
    return 0


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
