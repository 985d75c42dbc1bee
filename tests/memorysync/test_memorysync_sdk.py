"""MemorySync's SDK: what of it is used, what is never used, and that its slow parts run beside the event loop."""

from __future__ import annotations

import ast
import importlib.metadata
from pathlib import Path
from typing import Any

import openproto_adapters.memorysync
from openproto_adapters.memorysync import MemorySync
from openproto_conformance.emulators.memorysync import MemorySync as Emulator
from sdk_signatures import check_signatures

SOURCES = sorted(Path(openproto_adapters.memorysync.__path__[0]).glob("*.py"))

WHERE = """
import asyncio, ssl, sys, threading

importers = set()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("memorysync.", "httpx.")):  # the packages alone are looked up, and not imported
            importers.add(threading.current_thread().name)

sys.meta_path.insert(0, Watch())
contexts = set()
load = ssl.SSLContext.load_verify_locations
ssl.SSLContext.load_verify_locations = lambda *a, **k: (contexts.add(threading.current_thread().name), load(*a, **k))[1]

from openproto import AsyncMemory
from openproto_adapters.memorysync import MemorySync

unopened = MemorySync(base_url=sys.argv[1], api_key=sys.argv[2])
assert not importers, "imported before anything was opened"

async def main():
    async with AsyncMemory(unopened) as memory:
        for n in range(5):
            await memory.add("tea", user_id=f"user {n}")

asyncio.run(main())
assert importers and all(name.startswith("openproto-memorysync") for name in importers), importers
assert contexts and all(name.startswith("openproto-memorysync") for name in contexts), contexts
"""


def test_the_sdk_has_the_signatures_that_the_adapter_relies_on() -> None:
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_sdk_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("memorysync") == MemorySync.tested_with


def test_the_sdk_is_imported_and_tls_prepared_when_a_client_opens_and_never_on_the_loop(
    run_python: Any, emulator: Emulator
) -> None:
    ended = run_python(WHERE, emulator.url, emulator.api_key)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_nothing_in_the_adapter_can_erase_an_account() -> None:
    used: set[str] = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    assert "forget" in used
    assert not [one for one in used if "purge" in one]
    assert not used & {"_request", "_http", "delete", "request"}, "only the SDK's own methods reach MemorySync"
