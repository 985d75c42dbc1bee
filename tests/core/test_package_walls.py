"""The one direction of imports: adapters and conformance import openproto, openproto imports neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ("openproto", "openproto_adapters", "openproto_conformance")
HOMES = {
    "openproto": ROOT / "openproto",
    "openproto_adapters": ROOT / "adapters/openproto_adapters",
    "openproto_conformance": ROOT / "conformance/openproto_conformance",
}


def imported(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything that `module` imports, by any statement and at any depth."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and _names_a_module(node.value):
            # importlib.import_module("openproto_adapters.x") is an import too.
            yield node.value


def _names_a_module(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.split(".")[0] in HOUSE[1:] and value.replace(".", "").isidentifier()


def crossings(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports of `module` that go through a wall."""
    mine = module.split(".")
    through: list[str] = []
    for name in imported(source, module, is_package=is_package):
        parts = name.split(".")
        if parts[0] not in HOUSE or (mine[0] == parts[0] != "openproto_adapters"):
            continue
        if parts[0] == "openproto":
            allowed = True
        elif parts[0] == mine[0] == "openproto_adapters":
            allowed = len(parts) > 1 and len(mine) > 1 and parts[1] == mine[1]
        else:
            allowed = False
        if not allowed:
            through.append(name)
    return through


def modules() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for package, home in HOMES.items():
        for path in sorted(home.rglob("*.py")) if home.is_dir() else ():
            parts = [package, *path.relative_to(home).with_suffix("").parts]
            found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_no_module_imports_through_a_wall(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert crossings(source, module, is_package=path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "path"), [pytest.param(*e, id=e[0]) for e in modules() if e[0].startswith("openproto_adapters")]
)
def test_an_adapter_uses_only_public_modules_of_openproto(module: str, path: Path) -> None:
    names = imported(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")
    private = [name for name in names if name.startswith("openproto._")]
    assert private == []


def test_the_walls_are_looked_for_in_every_source_file() -> None:
    names = {name for name, _ in modules()}
    assert {
        "openproto",
        "openproto.client.async_memory",
        "openproto.embedding.local",
        "openproto_adapters.sqlite.provider",
    } <= names


@pytest.mark.parametrize("folder", ["adapters", "conformance"])
def test_the_folder_above_a_package_is_no_package_itself(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("openproto.client.async_memory", "import openproto_adapters"),
        ("openproto.client.async_memory", "from openproto_adapters.sqlite import Sqlite"),
        ("openproto.client.async_memory", "def late():\n    import openproto_conformance.suite"),
        ("openproto.client.async_memory", "import_module('openproto_adapters.sqlite')"),
        ("openproto_adapters.sqlite.provider", "from openproto_adapters.postgres import Postgres"),
        ("openproto_adapters.sqlite.provider", "from ..postgres import sql"),
        ("openproto_adapters.sqlite.provider", "from .. import postgres"),
        ("openproto_adapters.sqlite.provider", "import openproto_conformance"),
        ("openproto_adapters.mem0", "from openproto_adapters import sqlite"),
        ("openproto_conformance.suite", "from openproto_adapters.sqlite import Sqlite"),
    ],
)
def test_a_crossing_is_seen(module: str, source: str) -> None:
    assert crossings(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("openproto.client.async_memory", "from openproto.models import MemoryRecord"),
        ("openproto.client.async_memory", "from . import models"),
        ("openproto_adapters.sqlite.provider", "from openproto_adapters.sqlite import statements"),
        ("openproto_adapters.sqlite.provider", "from .database import Database"),
        ("openproto_adapters.sqlite.provider", "import numpy, openproto.models"),
        ("openproto_conformance.suite", "from openproto_conformance.probe import Probe"),
        ("openproto_conformance.suite", "from openproto import Provider"),
    ],
)
def test_an_import_inside_the_walls_is_allowed(module: str, source: str) -> None:
    assert crossings(source, module) == []
