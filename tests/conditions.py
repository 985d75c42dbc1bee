"""The conditions on the user in the statements of both stores, and taking one of them out."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest
from openproto_adapters.postgres import batches, changes, deciding, gets, large_search, queries, together
from openproto_adapters.postgres import restoring as postgres_restoring
from openproto_adapters.postgres import searching as postgres_searching
from openproto_adapters.postgres import snapshot as postgres_snapshot
from openproto_adapters.sqlite import adding, searching, selection, snapshot, statements, supersession, user_rows
from openproto_adapters.sqlite import restoring as sqlite_restoring
from openproto_adapters.sqlite import word_index as sqlite_words

OTHERS = r"(?:changed|target|handed|item|successor)\.user_id"
PATTERNS = {
    "sqlite": re.compile(r"(?:\w+\.)?user_id = :user_id"),
    "postgres": re.compile(rf"(?:\w+\.)?user_id = (?:coalesce\((\$\d), m\.user_id\)|(\$\d)|{{}}|{OTHERS})"),
}
MODULES: dict[str, list[ModuleType]] = {
    "sqlite": [
        *(adding, searching, selection, snapshot, statements, supersession, user_rows),
        *(sqlite_restoring, sqlite_words),
    ],
    "postgres": [
        *(batches, changes, deciding, gets, queries, together),
        *(postgres_restoring, postgres_searching, postgres_snapshot),
    ],
}


def _conditions(store: str, modules: list[ModuleType]) -> list[tuple[str, ModuleType, str, int]]:
    return [
        (store, module, name, number)
        for module in modules
        for name, text in sorted(vars(module).items())
        if name.isupper() and isinstance(text, str)
        for number in range(len(PATTERNS[store].findall(text)))
    ]


CONDITIONS = [found for store, modules in MODULES.items() for found in _conditions(store, modules)]
OF_LARGE_USERS = _conditions("postgres", [large_search])
"""Those that only users with an index meet."""


def take_out(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, number: int) -> None:
    """Let one of a statement's conditions on the user be true of every row."""
    count = iter(range(100))

    def without(match: re.Match[str]) -> str:
        if next(count) != number:
            return match[0]
        if match.re is PATTERNS["sqlite"]:
            return "1"
        parameter = match[1] or match[2] or ("{}" if "{}" in match[0] else "'x'")
        return f"coalesce({parameter}::text, '') IS NOT NULL"  # a parameter that is not used has no type

    pattern = PATTERNS["sqlite" if "sqlite" in module.__name__ else "postgres"]
    monkeypatch.setattr(module, name, pattern.sub(without, getattr(module, name)))


def take_out_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the providers pass on whatever the database shows."""
    for module in [*sys.modules.values()]:
        if module.__name__.startswith("openproto_adapters.") and hasattr(module, "check_owner"):
            monkeypatch.setattr(module, "check_owner", lambda *_: None)
