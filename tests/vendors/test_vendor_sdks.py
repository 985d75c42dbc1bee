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


SDKS = ("letta_client", "mem0", "memori", "memori_python", "memorysync", "memsy", "supermemory")
CONSTRUCTED = """
import json, sys
from openproto import AsyncMemory
for name, options in json.loads(sys.argv[1]).items():
    AsyncMemory(name, **options)
print(*sys.modules)
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
    ran = run_python(CONSTRUCTED, json.dumps({**UNOPENED, "passthrough": {"base_url": "https://127.0.0.1:1"}}))
    early = {*SDKS, "aiohttp", "httpx", "numpy", "psycopg", "qdrant_client", "sqlalchemy"} & {*ran.stdout.split()}
    assert (ran.returncode, early) == (0, set()), ran.stderr
