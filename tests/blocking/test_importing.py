"""Imports: what large ones keep from the garbage collector, and that the loop of a first client makes none.

From entering on, the loop of a process's first client imports nothing and builds no model of pydantic's.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lasting import postgres_url
from openproto_conformance.emulators.registry import EMULATORS, emulator_class

from openproto import AsyncMemory
from openproto.blocking.imports import large_import
from openproto.server import ServerSettings, create_app, running


class Link:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_is_as_before() -> Iterator[None]:
    before = list(gc.callbacks)
    yield
    gc.unfreeze()
    assert gc.callbacks == before


def import_links(monkeypatch: pytest.MonkeyPatch) -> list[Link]:
    """Return objects that stay, beside a module that was not there before."""
    monkeypatch.setitem(sys.modules, "links", ModuleType("links"))
    return [Link() for _ in range(10)]


def are_looked_at(objects: list[Any]) -> bool:
    looked_at = {id(one) for one in gc.get_objects()}
    return any(id(one) in looked_at for one in objects)


@pytest.mark.parametrize("collected", [True, False])
def test_what_was_imported_is_not_looked_at_again(collected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with large_import():
        links = import_links(monkeypatch)
        assert are_looked_at(links)
        with large_import():
            pass  # an inner one ends nothing of the outer one
        if collected:
            young = weakref.ref(Link())
            gc.collect(1)
            assert young() is None
            with monkeypatch.context() as forked:
                forked.setattr(os, "getpid", lambda: -1)
                gc.collect()
                assert are_looked_at(links), "a child that is forked meanwhile collects as ever"
            gc.collect()
            assert not are_looked_at(links), "a full collection meanwhile"
    assert not are_looked_at(links)
    dropped = weakref.ref(Link())
    gc.collect()
    assert dropped() is None


def test_nothing_is_frozen_where_nothing_was_imported() -> None:
    def fail() -> None:
        with large_import():
            gc.collect()
            importlib.import_module("no_such_module")

    frozen = gc.get_freeze_count()
    kept = [Link()]
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        fail()
    assert gc.get_freeze_count() == frozen
    assert are_looked_at(kept)


FEW = 10_000
"""The smallest SDK makes three times as many objects."""

PROGRAM = """
import asyncio, gc, json, ssl, sys, threading
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
        looked_at = len(gc.get_objects())
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
    print(looked_at, [name for name in on_the_loop if name in sys.modules or name[0].isupper()])

asyncio.run(main())
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
        case "mem0, the library":
            yield {"path": str(folder)}
        case _:
            with emulator_class(provider)() as emulator:
                yield emulator.provider_options()


@pytest.mark.parametrize(
    "provider",
    [
        pytest.param(name, marks=pytest.mark.full if name in ("postgres", "memori", "mem0, the library") else ())
        for name in ("sqlite", "postgres", "passthrough", "mem0, the library", *EMULATORS)
    ],
)
def test_the_first_call_imports_and_builds_nothing_on_the_loop(provider: str, tmp_path: Path, run_python: Any) -> None:
    """Nor does any later collection look at what an SDK has made."""
    with options(provider, tmp_path) as given:
        ended = run_python(PROGRAM, provider.partition(",")[0], json.dumps(given))
    looked_at, _, imported = ended.stdout.partition(" ")
    assert (ended.returncode, imported) == (0, "[]\n"), ended.stdout + ended.stderr
    if provider.partition(",")[0] in EMULATORS:
        assert int(looked_at) < FEW
