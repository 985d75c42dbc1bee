"""The one direction of imports: adapters and conformance import openproto, openproto imports neither; no circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOMES = {
    "openproto": ROOT / "openproto",
    "openproto_adapters": ROOT / "adapters/openproto_adapters",
    "openproto_conformance": ROOT / "conformance/openproto_conformance",
}
OTHERS = ("openproto_adapters", "openproto_conformance")

FOR_ADAPTERS = set(
    "blocking context embedding emulation errors fanout fields http_status ids models provider requests stores".split()
)
"""What authors of adapters build on; everything else of openproto may change without a word to them."""

LONGEST_FILE = 400
MOST_AT_THE_ROOT = 12
MOST_ARROWS = 89
"""From one room of openproto to another, where a room is a folder or a module at the root."""


def _imports(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Yield the full name of everything that `module` imports, by any statement and at any depth."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


def crossings(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """Return the imports of `module` that go through a wall."""
    mine = module.split(".")

    def is_allowed(name: str) -> bool:
        parts = name.split(".")
        if parts[0] == mine[0] == "openproto_adapters":
            return len(parts) > 1 and len(mine) > 1 and parts[1] == mine[1]
        return parts[0] not in OTHERS or parts[0] == mine[0]

    # importlib.import_module("openproto_adapters.x") is an import too.
    named = re.findall(rf"[\"']((?:{'|'.join(OTHERS)})[.\w]*)[\"']", source)
    names = [*_imports(ast.parse(source), module, is_package=is_package), *named]
    return [name for name in names if not is_allowed(name)]


def modules() -> list[tuple[str, Path]]:
    found: list[tuple[str, Path]] = []
    for package, home in HOMES.items():
        for path in sorted(home.rglob("*.py")):
            parts = [package, *path.relative_to(home).with_suffix("").parts]
            found.append((".".join(part for part in parts if part != "__init__"), path))
    return found


@pytest.mark.parametrize(("module", "path"), [pytest.param(*entry, id=entry[0]) for entry in modules()])
def test_a_module_imports_through_no_wall_and_is_not_too_long(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert crossings(source, module, is_package=path.name == "__init__.py") == []
    assert len(source.splitlines()) <= LONGEST_FILE
    if module.startswith("openproto_adapters"):
        parts = {name.split(".")[1] for name in module_graph()[module] if name.startswith("openproto.")}
        assert parts <= FOR_ADAPTERS


@cache
def module_graph() -> dict[str, set[str]]:
    """Return which modules each module imports, wherever in it; imports for type checkers alone are left out."""
    known = dict(modules())
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        tree = _Runtime().visit(ast.parse(path.read_text(encoding="utf-8")))
        names = _imports(tree, module, is_package=path.name == "__init__.py")
        # What is imported is a module, or stands in one.
        found = (name if name in known else name.rpartition(".")[0] for name in names)
        graph[module] = {name for name in found if name in known and name != module}
    return graph


class _Runtime(ast.NodeTransformer):
    """Takes out what stands under `if TYPE_CHECKING:`."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        if ast.unparse(node.test) == "TYPE_CHECKING":
            return node.orelse
        return self.generic_visit(node)


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = module_graph()
    assert {"openproto.models", "openproto_adapters.sqlite.statements"} <= graph["openproto_adapters.sqlite.provider"]
    assert {*TopologicalSorter(graph).static_order()} == graph.keys()  # a CycleError names a circle


def test_the_rooms_of_openproto_are_few_and_know_few_others() -> None:
    graph = {module: others for module, others in module_graph().items() if module.split(".")[0] == "openproto"}
    root = {path.stem for path in HOMES["openproto"].glob("*.py")} - {"__init__"}
    assert len(root) <= MOST_AT_THE_ROOT
    rooms = {module: (*module.split("."), "")[1] for module in graph}
    arrows = {(rooms[module], rooms[other]) for module, others in graph.items() for other in others}
    assert len({(source, target) for source, target in arrows if source != target}) <= MOST_ARROWS


@pytest.mark.parametrize(
    ("module", "source", "crosses"),
    [
        ("openproto.client", "import openproto_adapters", True),
        ("openproto.client", "def late():\n    import openproto_conformance.suite", True),
        ("openproto.client", "import_module('openproto_adapters.sqlite')", True),
        ("openproto.client", "from . import models", False),
        ("openproto_adapters.sqlite.provider", "from ..postgres import sql", True),
        ("openproto_adapters.sqlite.provider", "from .. import postgres", True),
        ("openproto_adapters.sqlite.provider", "from .database import Database", False),
        ("openproto_adapters.sqlite.provider", "import numpy, openproto.models, openproto_adapters.sqlite.sql", False),
        ("openproto_adapters.mem0", "from openproto_adapters import sqlite", True),
        ("openproto_conformance.suite", "from openproto_adapters.sqlite import Sqlite", True),
        ("openproto_conformance.suite", "from openproto_conformance.probe import Probe", False),
    ],
)
def test_a_crossing_is_seen_and_an_import_inside_the_walls_allowed(module: str, source: str, crosses: bool) -> None:
    assert bool(crossings(source, module)) == crosses
