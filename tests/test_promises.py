"""The list of promises is complete and true: each has a test that names it, and each test names one of the list."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIST = (ROOT / "tests/PROMISES.md").read_text(encoding="utf-8")
COUNT = 122
NOT_PROMISED = {42}
"""What the vendor says of another language's SDK."""

ROWS = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", LIST, re.MULTILINE)


def marks_of(source: str) -> Iterator[int]:
    """Yield the numbers that the tests and test classes of a module are marked with."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            if not node.name.lower().startswith("test"):
                continue
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.promise":
                    yield from (ast.literal_eval(number) for number in decorator.args)


KEEPERS: dict[int, set[str]] = defaultdict(set)
"""Which test modules keep each promise."""
for path in (ROOT / "tests").rglob("test_*.py"):
    for number in marks_of(path.read_text(encoding="utf-8")):
        KEEPERS[number].add(path.relative_to(ROOT).as_posix())


def test_every_promise_has_one_row_and_every_mark_a_row() -> None:
    numbers = [int(number) for number, *_ in ROWS]
    assert numbers == list(range(1, COUNT + 1))
    assert set(KEEPERS) == {*numbers} - NOT_PROMISED


@pytest.mark.parametrize(("number", "where"), [(int(number), where) for number, _, _, where in ROWS])
def test_what_a_row_names_is_where_its_promise_is_kept(number: int, where: str) -> None:
    named = re.findall(r"`([^`]+)`", where)
    assert bool(named) == (number not in NOT_PROMISED)
    assert {f"tests/{name}" for name in named} <= KEEPERS[number]


def test_only_marks_of_tests_count() -> None:
    source = """
@pytest.mark.promise(1)
def test_one(): ...
@pytest.mark.promise(2, 3)
class TestTwo:
    @pytest.mark.promise(4)
    async def test_three(self): ...
@pytest.mark.promise(5)
def helper(): ...
"@pytest.mark.promise(6)"
"""
    assert {*marks_of(source)} == {1, 2, 3, 4}
