"""`make check-hard`: what is too long for every change. `python tests/hard [--scale 0.01] [--seed N] [PART ...]`.

Prints a line for each part and exits with status 1 when one fails; `--write` puts the table into docs/reliability.md.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import random
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "server"))

import parts  # noqa: E402
import schemathesis_run  # pyright: ignore[reportMissingImports]  # noqa: E402  found by the line above

TABLE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


class Part(NamedTuple):
    """A part, how large it is at full scale, and what must hold."""

    run: Callable[[random.Random, int], Coroutine[Any, Any, str]]
    size: int
    bound: str


async def schemathesis(chance: random.Random, cases: int) -> str:
    """Send requests invented from the server's own OpenAPI."""
    told = await asyncio.to_thread(schemathesis_run.schemathesis, max(1, cases // 12))
    parts.ensure(told.ok, told.output[-2000:])
    return f"{told.cases:,} requests, every check passed"


PARTS: dict[str, Part] = {
    "kills": Part(parts.kills, 130, "no acknowledged memory is lost or doubled"),
    "network": Part(parts.network, 5_000, "an answer or a typed error, in bounded time"),
    "storm": Part(parts.storm, 45_000, "the client works afterwards, no task is left"),
    "probes": Part(parts.probes, 100_000, "an answer or a typed error"),
    "schemathesis": Part(schemathesis, 50_000, "every answer is as its OpenAPI says"),
    "soak": Part(parts.soak, 1_800, f"less than {parts.SOAK_LIMIT} kB an operation"),
}


def main() -> int:
    """Run the parts that were named, or all."""
    parser = argparse.ArgumentParser(prog="tests/hard")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full size")
    parser.add_argument("--seed", type=int, default=20261129)
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    given = parser.parse_args()
    rows, failed = [], False
    for name in given.parts or PARTS:
        part = PARTS[name]
        size = max(1, round(part.size * given.scale))
        started = time.monotonic()
        try:
            figure = asyncio.run(part.run(random.Random(f"{name}-{given.seed}"), size))
        except Exception as error:
            failed, figure = True, f"FAILED: {type(error).__name__}: {error}"
        rows.append(f"| {name} | {part.bound} | {figure} | {time.monotonic() - started:.0f} s |")
        sys.stdout.write(rows[-1] + "\n")
        sys.stdout.flush()
    if given.write and not failed:
        _write(rows, given.seed, given.scale)
    return int(failed)


def _write(rows: list[str], seed: int, scale: float) -> None:
    machine = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    head = f"{datetime.now(UTC):%Y-%m-%d}, {machine}; seed {seed}, scale {scale:g}."
    table = ["| part | what must hold | figure | took |", "|---|---|---|---|", *rows]
    before, _, rest = TABLE.read_text().partition(BEGIN)
    TABLE.write_text(f"{before}{BEGIN}\n{head}\n\n" + "\n".join(table) + f"\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main())
