"""Measure, show, and judge the figures: exit status 1 when a bound is missed."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from benchmarks.harness import Bench, Figure, Watch, failed
from benchmarks.report import print_table, quoted, write_json
from benchmarks.server import private_server

REPOSITORY = Path(__file__).resolve().parents[1]
FIGURES = REPOSITORY / "benchmarks" / "figures.json"
DOCUMENTS = (REPOSITORY / "README.md", REPOSITORY / "docs" / "performance.md")
"""What quotes the figures."""
BENCHMARKS = (
    "overhead",
    "driver",
    "peers",
    "search_latency",
    "insert_rate",
    "bulk",
    "loop_stall",
    "import_stall",
    "cancellation",
    "retrieval",
    "growth",
    "http_client",
    "http_server",
    "adapters",
    "cancelled_requests",
)
RUNS = 3
"""A bound is met if it is met this many times in a row."""
EXACT = {"retrieval"}
WITHOUT_SERVER = {"adapters", "cancelled_requests", "http_client", "import_stall", "overhead"}


def main() -> int:
    """Run what was asked for and return the exit status."""
    options = _options()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what is imported was compiled before
    watch = Watch()
    results: dict[str, list[Figure]] = {}
    names = [name for name in BENCHMARKS if not options.only or name in options.only]
    options.folder.mkdir(parents=True, exist_ok=True)
    with _server(options, names, watch) as url:
        bench = Bench(url, options.folder, options.quick, _locomo(options.locomo), watch)
        for name in names:
            start = time.monotonic()
            watch.say(f"-- {name}")
            results[name] = _runs(name, bench, 1 if options.quick else RUNS)
            watch.say(f"   {name} took {time.monotonic() - start:.0f} s")
    write_json(options.json, results, quick=options.quick)
    print_table(results)
    watch.say(f"figures written to {options.json}")
    if options.write:
        write_json(FIGURES, results, quick=options.quick)
        quote()
    return int(any(figure.ok is False for found in results.values() for figure in found))


def quote() -> None:
    """Put the figures of the last written run into the documents that show them."""
    report = json.loads(FIGURES.read_text(encoding="utf-8"))
    for document in DOCUMENTS:
        document.write_text(quoted(document.read_text(encoding="utf-8"), report), encoding="utf-8")


def _runs(name: str, bench: Bench, count: int) -> list[Figure]:
    """Return each figure of a benchmark over several runs in a row; one that breaks down takes no other along.

    Its module has either `run`, or `runs` where what it measures takes long to prepare. What counts nothing but hits is
    the same each time.
    """
    module = importlib.import_module(f"benchmarks.{name}")
    try:
        if hasattr(module, "runs"):
            found = asyncio.run(module.runs(bench, count))
        else:
            found = [asyncio.run(module.run(bench)) for _ in range(1 if name in EXACT else count)]
    except Exception as error:
        traceback.print_exc()
        return [failed(name, error)]
    together: dict[str, list[Figure]] = {}
    for figure in chain.from_iterable(found):
        together.setdefault(figure.name, []).append(figure)
    return [Figure.of_runs(runs) for runs in together.values()]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="measure this alone; may be given twice")
    parser.add_argument("--quick", action="store_true", help="smaller sizes: a look, not a verdict")
    parser.add_argument("--json", type=Path, default=REPOSITORY / ".bench" / "figures.json", metavar="FILE")
    parser.add_argument("--write", action="store_true", help="keep the figures, and put them into the documents")
    parser.add_argument("--url", help="a PostgreSQL of yours; without it a private one is started")
    parser.add_argument("--locomo", type=Path, help="the folder of the LoCoMo conversations (OPENPROTO_LOCOMO)")
    parser.set_defaults(folder=REPOSITORY / ".bench")
    return parser.parse_args()


@contextmanager
def _server(options: argparse.Namespace, names: list[str], watch: Watch) -> Iterator[str]:
    if options.url or WITHOUT_SERVER.issuperset(names):
        yield options.url or ""
        return
    watch.say("starting a private PostgreSQL")
    with private_server(options.folder) as url:
        yield url


def _locomo(given: Path | None) -> Path | None:
    """Return the folder that was named, or the default next to the repository; None where there is nothing to read."""
    named = given or os.environ.get("OPENPROTO_LOCOMO")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data" / "locomo"
    return folder.resolve() if any(folder.glob("*.json")) else None


if __name__ == "__main__":
    sys.exit(main())
