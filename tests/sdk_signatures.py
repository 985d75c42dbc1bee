"""The signatures of a vendor's SDK that an adapter relies on, as text that a test can compare."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name


def signature(name: str) -> str:
    """Return the signature of `package:Class.method`, without the addresses of default values."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(resolve_name(name))))


def check_signatures(path: Path) -> None:
    """Compare the signatures in a JSON file, `{"package:Class.method": "(self, ...)"}`, with those installed."""
    expected: Mapping[str, str] = json.loads(path.read_text())
    installed = {name: _unqualified(signature(name)) for name in expected}
    wanted = {name: _unqualified(text) for name, text in expected.items()}
    assert installed == wanted, f"the SDK has changed: try the adapter with it, then bring {path.name} up to date"


def _unqualified(text: str) -> str:
    """Drop the modules of types: one SDK renames the module of httpx's when it is imported, and so for all others."""
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", text)
