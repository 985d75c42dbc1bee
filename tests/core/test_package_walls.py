"""The one direction of imports: adapters and conformance import openproto, openproto imports neither; no circles."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOMES = {
    "openproto": ROOT / "openproto",
    "openproto_adapters": ROOT / "adapters/openproto_adapters",
    "openproto_conformance": ROOT / "conformance/openproto_conformance",
}
FOR_ADAPTERS = set(
    "blocking context embedding emulation errors fanout fields http_status ids models provider requests stores".split()
)
"""What authors of adapters build on; everything else of openproto may change without a word to them."""

LONGEST_FILE = 400
MOST_AT_THE_ROOT = 12
MOST_ARROWS = 89
"""From one room of openproto to another, where a room is a folder or a module at the root."""


@cache
def modules() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for package, home in HOMES.items():
        for path in sorted(home.rglob("*.py")):
            parts = [package, *path.relative_to(home).with_suffix("").parts]
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


class _Runtime(ast.NodeTransformer):
    """Takes out what stands under `if TYPE_CHECKING:`."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else self.generic_visit(node)  # type: ignore[return-value]


def _imports(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """Yield the full name of everything that a module of the package imports, by any statement and at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from (f"{start}.{alias.name}" for alias in node.names)


@cache
def imported(module: str, *, at_runtime: bool) -> set[str]:
    """Return which modules a module imports; those for type checkers alone only where not `at_runtime`."""
    path = modules()[module]
    source = path.read_text(encoding="utf-8")
    tree: ast.AST = ast.parse(source)
    package = module.split(".")[: None if path.name == "__init__.py" else -1]
    names = [*_imports(_Runtime().visit(tree) if at_runtime else tree, package)]
    if not at_runtime:  # importlib.import_module("openproto_adapters.x") is an import too
        names += re.findall(r"[\"'](openproto_(?:adapters|conformance)[.\w]*)[\"']", source)
    # What is imported is a module, or stands in one.
    found = (name if name in modules() else name.rpartition(".")[0] for name in names)
    return {name for name in found if name in modules() and name != module}


def _is_allowed(module: str, other: str) -> bool:
    mine, its = module.split("."), other.split(".")
    if its[0] == "openproto":
        return mine[0] != "openproto_adapters" or len(its) == 1 or its[1] in FOR_ADAPTERS
    return mine[0] == its[0] and (its[0] == "openproto_conformance" or mine[:2] == its[:2])


def test_no_module_imports_through_a_wall_or_is_too_long() -> None:
    assert {"openproto.models", "openproto_adapters.sqlite.statements"} <= imported(
        "openproto_adapters.sqlite.provider", at_runtime=False
    )
    assert not [
        (module, other)
        for module in modules()
        for other in imported(module, at_runtime=False)
        if not _is_allowed(module, other)
    ]
    assert not [
        module for module, path in modules().items() if len(path.read_text("utf-8").splitlines()) > LONGEST_FILE
    ]


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported(module, at_runtime=True) for module in modules()}
    assert {*TopologicalSorter(graph).static_order()} == graph.keys()  # a CycleError names a circle


def test_the_rooms_of_openproto_are_few_and_know_few_others() -> None:
    own = [module for module in modules() if module.split(".")[0] == "openproto"]
    assert len({path.stem for path in HOMES["openproto"].glob("*.py")} - {"__init__"}) <= MOST_AT_THE_ROOT
    rooms = {module: (*module.split("."), "")[1] for module in own}
    arrows = {(rooms[module], rooms[other]) for module in own for other in imported(module, at_runtime=True)}
    assert len({(source, target) for source, target in arrows if source != target}) <= MOST_ARROWS
