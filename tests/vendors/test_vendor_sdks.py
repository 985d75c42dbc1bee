"""The vendors' SDKs: what of them is used, when they are imported, and that the event loop does neither."""

from __future__ import annotations

import importlib.metadata
import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from hosted import Hosted
from openproto_adapters.mem0.quiet_import import import_mem0

from openproto.registry import provider_class

SIGNATURES = Path(__file__).parent / "signatures"
UNOPENED: Mapping[str, dict[str, str]] = {
    "letta": {"api_key": "k"},
    "mem0": {},
    "memori": {"url": "postgresql://app@db/memory"},
    "memorysync": {"api_key": "k"},
    "memsy": {"base_url": "https://127.0.0.1:1/v1", "api_key": "k"},
    "supermemory": {"api_key": "k"},
}

BEFORE_OPENING = """
import json, sys
from openproto import AsyncMemory
for name, options in json.loads(sys.argv[1]).items():
    AsyncMemory(name, **options)
sdks = {"letta_client", "mem0", "memori", "memori_python", "memorysync", "memsy", "supermemory"}
early = (sdks | {"httpx", "numpy", "psycopg", "qdrant_client", "sqlalchemy"}) & set(sys.modules)
assert not early, f"imported before anything was opened: {early}"
"""

WHERE = """
import asyncio, json, ssl, sys, threading

importers, contexts = set(), set()
name, sdk, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])

class Watch:
    def find_spec(self, module, path=None, target=None):
        if module.startswith((f"{sdk}.", "httpx.")):  # the packages alone are looked up, and not imported
            importers.add(threading.current_thread().name)

sys.meta_path.insert(0, Watch())
load = ssl.SSLContext.load_verify_locations
ssl.SSLContext.load_verify_locations = lambda *a, **k: (contexts.add(threading.current_thread().name), load(*a, **k))[1]

from openproto import AsyncMemory

async def main():
    async with AsyncMemory(name, **options) as memory:
        for n in range(3):
            await memory.add("tea", user_id=f"user {n}")

asyncio.run(main())
for where in (importers, contexts):
    assert all(thread.startswith(f"openproto-{name}") for thread in where), where
assert importers
"""


def unqualified(text: str) -> str:
    """Drop addresses, and the modules of types: one SDK renames httpx's when it is imported, and so for all others."""
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", re.sub(r" at 0x[0-9a-f]+", "", text))


@pytest.mark.parametrize("name", [path.stem for path in sorted(SIGNATURES.glob("*.json"))])
def test_an_sdk_has_the_signatures_that_its_adapter_relies_on(name: str) -> None:
    import_mem0()  # or its import writes and sends
    expected: Mapping[str, str] = json.loads((SIGNATURES / f"{name}.json").read_text())
    installed = {entry: unqualified(str(inspect.signature(resolve_name(entry)))) for entry in expected}
    wanted = {entry: unqualified(text) for entry, text in expected.items()}
    assert installed == wanted, f"the SDK has changed: try the adapter with it, then bring {name}.json up to date"


@pytest.mark.parametrize("name", UNOPENED)
def test_the_installed_sdk_is_one_that_was_tried(name: str) -> None:
    provider: Any = provider_class(name)
    assert importlib.metadata.version(provider.sdk) == provider.tested_with


def test_no_sdk_is_imported_before_a_client_opens(run_python: Any) -> None:
    ran = run_python(BEFORE_OPENING, json.dumps(UNOPENED))
    assert ran.returncode == 0, ran.stderr


def test_sdks_are_imported_in_the_providers_threads(
    hosted: Hosted, emulator: Any, tmp_path: Path, run_python: Any
) -> None:
    options = emulator.provider_options()
    if emulator.beside_a_file:
        options["path"] = str(tmp_path / "records.db")
    ran = run_python(WHERE, hosted.name, hosted.sdk, json.dumps(options))
    assert (ran.returncode, ran.stderr) == (0, "")
