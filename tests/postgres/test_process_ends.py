"""However a process ends, in whatever order its handlers run: calls work or fail at once, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from openproto_conformance.emulators.memsy import Memsy
from postgres_tools import Server

from openproto import AsyncMemory, Memory
from openproto.server import ServerSettings, create_app, running

SAMPLES: dict[str, tuple[int, ...]] = {"sqlite": (0, 1, 2), "postgres": (3,), "passthrough": (4,), "memsy": (5,)}
"""Which combinations each provider has every day, by their number modulo 7."""
CODES = {"normal": 0, "exception": 1, "exit": 7, "term": 7, "kill": -15, "int": -2}
LISTS = {("sync", False): 2, ("sync", True): 3, ("async", False): 1, ("async", True): 2}
TRACEBACK = ("Traceback (most", "During handling", "ZeroDivisionError", "KeyboardInterrupt", "asyncio.exceptions.Canc")
CLOSERS = ("before import", "after import", "after open")


@pytest.fixture(scope="module")
def options(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ends")
    stored: dict[str, Any] = {"path": str(folder / "served.db"), "embedder": "none"}
    with Memsy() as emulator, running(create_app(AsyncMemory("sqlite", **stored), ServerSettings())) as url:
        yield {
            "sqlite": {"path": str(folder / "m.db"), "embedder": "none"},
            "postgres": {"url": server.dsn(), "schema": "ends", "embedder": "none"},
            "passthrough": {"base_url": url},
            "memsy": {**emulator.provider_options(), "path": str(folder / "memsy.db")},
        }


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.full)], ids=["some", "every"])
@pytest.mark.parametrize("provider", SAMPLES)
def test_processes_end_in_silence_in_time_and_without_loss(
    provider: str, every: bool, options: dict[str, dict[str, Any]]
) -> None:
    cells: dict[str, dict[str, Any]] = {}
    for number, (closes, face, fork, end) in enumerate(product(CLOSERS, ("sync", "async"), (False, True), CODES)):
        if face == "async" and closes != CLOSERS[0]:  # `asyncio.run` closes it before any handler runs
            continue
        if not every and number % 7 not in SAMPLES[provider]:
            continue
        name = f"{face}-{'forked' if fork else 'alone'}-{end}-closed {closes}-{every}"
        cells[name] = {
            "name": name,
            "provider": provider,
            "options": options[provider],
            "face": face,
            "fork": fork,
            "end": end,
            "closes": closes,
            "user": name,
            "path": [path for path in sys.path if path],
        }
    ends = run(list(cells.values()))
    assert ends.keys() == cells.keys()
    faults = {name: fault for name, cell in cells.items() if (fault := wrong_with(cell, **ends[name]))}
    assert not faults
    if provider in ("sqlite", "postgres"):
        with Memory(provider, **options[provider]) as memory:
            for name, cell in cells.items():
                listed = [entry for entry in memory.audit(name, limit=1000) if entry.action == "list"]
                assert cell["end"] == "kill" or len(listed) == LISTS[cell["face"], cell["fork"]], name


def run(cells: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    lines = "".join(json.dumps(cell) + "\n" for cell in cells)
    program = Path(__file__).with_name("process_ends.py")
    ended = subprocess.run([sys.executable, program], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    return {end["name"]: end for end in map(json.loads, ended.stdout.splitlines())}


def wrong_with(cell: dict[str, Any], name: str, code: int, output: str) -> str | None:
    """Say what is wrong with the end of a process, if anything is."""
    lines = output.splitlines()
    ours = ("used", "before import", "after import", "after open", "finalizer")
    printed = [line for line in lines if not line.startswith(ours)]
    if code != CODES[cell["end"]]:
        return f"ended with {code}: {output}"
    if cell["end"] in ("exception", "int"):  # what Python itself prints of it
        printed = [line for line in printed if line and not line.startswith((" ", *TRACEBACK))]
    if any(printed):
        return f"prints {output}"
    if cell["end"] != "kill" and cell["face"] == "sync" and f"{cell['closes']} closed" not in lines:
        return f"closes nothing: {output}"
    if cell["end"] != "kill" and cell["face"] == "sync" and "after open works" not in lines:
        return f"does not work in a handler: {output}"
    return None
