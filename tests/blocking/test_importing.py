"""Large imports: what they keep from the garbage collector, and what they leave as it was."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from openproto_conformance.emulators.registry import EMULATORS, emulator_class

from openproto.blocking.imports import large_import

Import: TypeAlias = Callable[[], Any]
SDKS = ("mem0, the library", *EMULATORS)

MODULE = """
class Link:
    def __init__(self):
        self.itself = self

links = [Link() for _ in range(10)]
"""


class Link:
    """An object that only the garbage collector frees."""

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


FORKED = """
import gc, os, sys, weakref
from openproto.blocking.imports import large_import

class Link:
    def __init__(self):
        self.itself = self

with large_import():
    import wave
    child = os.fork()
    if child == 0:
        dropped = weakref.ref(Link())
        gc.collect()
        os._exit(0 if dropped() is None else 1)
    _, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_meanwhile_collects_as_ever(run_python: Any) -> None:
    ended = run_python(FORKED)
    assert (ended.returncode, ended.stderr) == (0, "")
