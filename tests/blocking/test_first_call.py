"""The first client of a process: from entering on, its loop imports nothing and builds no model of pydantic's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lasting import postgres_url
from openproto_conformance.emulators.registry import EMULATORS, emulator_class

from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app, running

PROGRAM = """
import asyncio, json, ssl, sys, threading
from openproto import AsyncMemory, UnsupportedCapabilityError
from pydantic._internal import _model_construction

on_the_loop, loop_thread = [], threading.get_ident()
load = ssl.SSLContext.load_verify_locations

def loading(*arguments, **options):  # all authorities take a tenth of a second
    if threading.get_ident() == loop_thread and is_open:
        on_the_loop.append("TLS authorities")
    return load(*arguments, **options)

def audit(event, arguments):
    if event == "import" and threading.get_ident() == loop_thread and is_open:
        on_the_loop.append(arguments[0])

def complete(*arguments, real=_model_construction.complete_model_class, **options):
    if threading.get_ident() == loop_thread and is_open:
        on_the_loop.append(arguments[0].__name__)
    return real(*arguments, **options)

is_open = False
ssl.SSLContext.load_verify_locations = loading
_model_construction.complete_model_class = complete
sys.addaudithook(audit)

async def main():
    global is_open
    memory = await asyncio.to_thread(AsyncMemory, sys.argv[1], **json.loads(sys.argv[2]))
    is_open = True
    async with memory:
        record = await memory.add("tea", user_id="ada")
        calls = [
            memory.get(record.id), memory.list("ada"), memory.search("tea", "ada"), memory.context("tea", "ada"),
            memory.update(record.id, content="milk"), memory.delete(record.id), memory.capabilities(),
        ]
        for call in calls:
            try:
                await call
            except UnsupportedCapabilityError:
                pass
    is_open = False

asyncio.run(main())
print([name for name in on_the_loop if name in sys.modules or name[0].isupper()])
"""


@contextmanager
def options(provider: str, folder: Path) -> Iterator[dict[str, Any]]:
    stored: dict[str, Any] = {"path": str(folder / "memory.db"), "embedder": "none"}
    match provider:
        case "sqlite":
            yield {"path": stored["path"]}
        case "postgres":
            yield {"url": postgres_url("first_call")}
        case "passthrough":
            with running(create_app(AsyncMemory("sqlite", **stored), ServerSettings())) as url:
                yield {"base_url": url}
        case _:
            with emulator_class(provider)() as emulator:
                yield emulator.provider_options()


@pytest.mark.parametrize(
    "provider",
    [
        pytest.param(name, marks=pytest.mark.full if name in ("postgres", "memori") else ())
        for name in ("sqlite", "postgres", "passthrough", *EMULATORS)
    ],
)
def test_the_first_call_imports_and_builds_nothing_on_the_loop(provider: str, tmp_path: Path, run_python: Any) -> None:
    with options(provider, tmp_path) as given:
        ended = run_python(PROGRAM, provider, json.dumps(given))
    assert (ended.returncode, ended.stdout) == (0, "[]\n"), ended.stdout + ended.stderr
