"""What of Memori's package is used, and when it is imported."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from memori_tools import RunPython
from openproto_adapters.memori import Memori
from sdk_signatures import check_signatures


def test_the_package_has_the_signatures_that_the_adapter_relies_on() -> None:
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_package_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("memori") == Memori.tested_with


def test_memori_and_sqlalchemy_are_imported_when_the_client_opens_and_not_before(run_python: RunPython) -> None:
    program = """
import sys
import openproto_adapters.memori
openproto_adapters.memori.Memori("postgresql://app@db/memory")
assert not {"memori", "memori_python", "sqlalchemy", "psycopg"} & set(sys.modules), "imported too early"
"""
    assert run_python(program).returncode == 0
