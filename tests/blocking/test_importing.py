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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from lasting import postgres_url
from openproto_conformance.emulators.registry import EMULATORS, emulator_class

from openproto import AsyncMemory
from openproto.blocking.imports import large_import
from openproto.server import ServerSettings, create_app, running

Import: TypeAlias = Callable[[], Any]
SDKS = ("mem0, the library", *EMULATORS)

MODULE = """
class Link:
    def __init__(self):
        self.itself = self

links = [Link() for _ in range(10)]
"""


class Link:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def callbacks() -> Iterator[list[Any]]:
    """Return what the collector calls before the test; all that the test froze is collected again afterwards."""
    yield list(gc.callbacks)
    gc.unfreeze()


@pytest.fixture
def import_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Import]:
    name = f"links_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: importlib.import_module(name)
    sys.modules.pop(name, None)


def are_looked_at(objects: list[Any]) -> bool:
    looked_at = {id(one) for one in gc.get_objects()}
    return any(id(one) in looked_at for one in objects)


@pytest.mark.parametrize("collected", [True, False])
def test_what_was_imported_is_not_looked_at_again(import_links: Import, collected: bool) -> None:
    with large_import():
        links = import_links().links
        assert are_looked_at(links)
        with large_import():
            pass  # an inner one ends nothing of the outer one
        if collected:
            young = weakref.ref(Link())
            gc.collect(1)
            assert young() is None
            gc.collect()
            assert not are_looked_at(links), "a full collection meanwhile"
    assert not are_looked_at(links)
    dropped = weakref.ref(Link())
    gc.collect()
    assert dropped() is None


def test_nothing_is_frozen_where_nothing_was_imported() -> None:
    frozen = gc.get_freeze_count()
    kept = [Link()]
    with large_import():
        importlib.import_module("json")
        gc.collect()
    assert gc.get_freeze_count() == frozen
    assert are_looked_at(kept)


def test_a_failed_import_raises_and_leaves_the_collector_alone(callbacks: list[Any]) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), large_import():
        importlib.import_module("no_such_module")
    assert gc.callbacks == callbacks


OPENED = """
import asyncio, gc, json, sys
from openproto import AsyncMemory

async def main():
    async with AsyncMemory(sys.argv[1], **json.loads(sys.argv[2])):
        print(len(gc.get_objects()))

asyncio.run(main())
"""
FEW = 10_000
"""The smallest SDK makes three times as many objects."""


@pytest.mark.parametrize("provider", [pytest.param(one, marks=[pytest.mark.full] * (one != "letta")) for one in SDKS])
def test_an_sdk_is_kept_from_later_collections(provider: str, run_python: Any, tmp_path: Path) -> None:
    if provider == "mem0, the library":
        ended = run_python(OPENED, "mem0", json.dumps({"path": str(tmp_path)}))
    else:
        with emulator_class(provider)() as emulator:
            ended = run_python(OPENED, provider, json.dumps(emulator.provider_options()))
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < FEW


def test_a_child_forked_meanwhile_collects_as_ever(import_links: Import, monkeypatch: pytest.MonkeyPatch) -> None:
    with large_import():
        links = import_links().links
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            gc.collect()
            assert are_looked_at(links)


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
