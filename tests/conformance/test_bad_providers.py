"""Providers that do harm to the command that tries them: each is reported as that, and a report is kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from openproto_conformance.report import Report
from openproto_conformance.verify import read_reports

MODULE = """
import asyncio, multiprocessing, os, sys, threading, time
from openproto_adapters.sqlite import Sqlite

class Store(Sqlite):
    def __init__(self, path=None):
        super().__init__(path, embedder="none")

class HangsInOpen(Store):
    async def open(self):
        await asyncio.Event().wait()

class BlocksInOpen(Store):
    async def open(self):
        time.sleep(3600)

class RaisesInItsConstructor(Sqlite):
    def __init__(self, path=None):
        raise LookupError("where is it?")

class RefusesEveryValue(Sqlite):
    def __init__(self, path=None):
        raise ValueError("no value is right")

class ExitsInOpen(Store):
    async def open(self):
        sys.exit(3)

class Exits(Store):
    async def health(self):
        sys.exit(3)

class Prints(Store):
    async def health(self):
        print("hello from the provider")

class StartsAThread(Store):
    async def open(self):
        threading.Thread(target=time.sleep, args=(3600,), name="immortal", daemon=False).start()
        await super().open()

class HangsInGet(Store):
    async def get(self, ref):
        await asyncio.Event().wait()

class DiesInAHelper(Store):
    async def get(self, ref):
        if multiprocessing.parent_process() is not None:
            os._exit(5)
        return await super().get(ref)

class RefusesASecondStore(Store):
    async def open(self):
        if multiprocessing.parent_process() is not None:
            raise RuntimeError("there can be one")
        await super().open()
"""

BAD = {
    "HangsInOpen": "could not be opened: ProviderTimeoutError: opening on 'sqlite' did not finish within",
    "BlocksInOpen": "could not be opened: the event loop was blocked",
    "RaisesInItsConstructor": "could not be opened: LookupError: where is it?",
    "RefusesEveryValue": "could not be opened: ValueError: no value is right",
    "ExitsInOpen": "could not be opened: the provider raised SystemExit(3)",
    "Exits": "ended the loop of every Memory",
    "Prints": "text on stdout, 24 characters that begin with 'hello from the provider",
    "StartsAThread": "thread 'immortal'",
    "HangsInGet": "'get' on 'sqlite' did not finish within 3 s; nothing was changed. Raise timeout=, or look at the "
    "backend's load: 3 calls had ended",
}


def tried(name: str, folder: Path, *options: str) -> tuple[str, Report]:
    """Return what trying a few cases on a provider prints, and the report."""
    (folder / "bad_provider.py").write_text(MODULE)
    info = folder / "bad_provider-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad_provider\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[openproto.providers]\nbad = bad_provider:{name}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENPROTO_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment.get("PYTHONPATH", "")])
    patches = (
        "from openproto_conformance import bench, bounded, execute; bench.CALL_WITHIN = 3.0; bounded.GRACE = 0.3; "
    )
    program = f"{patches} execute.WARM_UP_SECONDS = 7.0; from openproto.cli import main; import sys; sys.exit(main())"
    command = [sys.executable, "-c", program, "conformance", "bad", "--only", "a_backend_that_answers_is_healthy"]
    command += ["--only", "errors/an_error_says_what_and_where", "--only", "get_returns_what_was_added", *options]
    done = subprocess.run(
        [*command, "--quick", "--json", "--report", "report.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (report,) = read_reports(folder / "report.json")
    return done.stdout, report


@pytest.mark.parametrize("name", BAD)
def test_it_is_reported_as_that(name: str, tmp_path: Path) -> None:
    printed, report = tried(name, tmp_path)
    assert report.verdict == "fails", report.to_markdown()
    texts = [report.problem or "", *(entry.detail for entry in report.cases)]
    assert any(BAD[name] in text for text in texts), report.to_markdown()
    assert printed.startswith('{"reports"'), "what the provider prints is not in the output"


@pytest.mark.parametrize("name", ["DiesInAHelper", "RefusesASecondStore"])
def test_one_process_goes_on_where_the_other_cannot(name: str, tmp_path: Path) -> None:
    _, report = tried(name, tmp_path, "--processes", "2", "--only", "basics")
    assert report.tally.keys() == {"passed", "missing"}, report.to_markdown()
    assert all(entry.outcome == "passed" for entry in report.cases if entry.area == "basics")
