"""The list of promises is complete and true: each has a row, and the tests that a row names are there."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
COUNT = 122
NOT_PROMISED = {42}
"""What the vendor says of another language's SDK."""

LIST = (TESTS / "PROMISES.md").read_text(encoding="utf-8")
ROWS = [(int(number), where) for number, where in re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", LIST, re.MULTILINE)]


@cache
def names_in(file: str) -> set[str]:
    nodes = ast.walk(ast.parse((TESTS / file).read_text(encoding="utf-8")))
    named = (node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))
    return {name for name in named if name.lower().startswith("test")}


def test_every_promise_has_one_row() -> None:
    assert [number for number, _ in ROWS] == list(range(1, COUNT + 1))


@pytest.mark.parametrize(("number", "where"), ROWS)
def test_a_promise_is_kept_by_tests_that_are_there(number: int, where: str) -> None:
    named = [name.split("::") for name in re.findall(r"`([^`]+)`", where)]
    assert bool(named) == (number not in NOT_PROMISED)
    assert all(test in names_in(file) for file, test in named), where
