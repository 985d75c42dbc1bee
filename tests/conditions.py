"""The conditions on the user in the statements of both stores, taking one of them out, and trying what it guards."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import pytest
from openproto_adapters.postgres import batches, changes, deciding, gets, large_search, queries, together
from openproto_adapters.postgres import restoring as postgres_restoring
from openproto_adapters.postgres import searching as postgres_searching
from openproto_adapters.postgres import snapshot as postgres_snapshot
from openproto_adapters.sqlite import adding, searching, selection, snapshot, statements, supersession, user_rows
from openproto_adapters.sqlite import restoring as sqlite_restoring
from openproto_adapters.sqlite import word_index as sqlite_words
from pydantic_core import to_json

from openproto import AsyncMemory, MemoryInput, MemoryRecord

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


def told_by(answer: object) -> str:
    """Return all that an answer holds; its repr has neither contents nor the records of a page."""
    return to_json(answer, fallback=repr).decode()


def attempts(
    memory: AsyncMemory, eve: str, one: MemoryRecord, other: MemoryRecord
) -> list[Callable[[], Awaitable[Any]]]:
    """Return each verb as Eve calls it for another's records, of which `one` has the key "k", a scope, and a tag."""
    both, content = (one.id, other.id), one.content
    taken = other.model_copy(update={"user_id": eve, "key": None})
    return [
        lambda: memory.get(one.id, user_id=eve),
        lambda: asyncio.gather(*(memory.get(id, user_id=eve) for id in both)),
        lambda: memory.get(key="k", user_id=eve),
        lambda: memory.update(one.id, user_id=eve, content="changed"),
        lambda: memory.update(one.id, user_id=eve, supersedes=[other.id]),
        lambda: memory.delete(one.id, user_id=eve),
        lambda: asyncio.gather(*(memory.update(id, user_id=eve, content="changed") for id in both * 2)),
        lambda: asyncio.gather(*(memory.delete(id, user_id=eve) for id in both * 2)),
        lambda: asyncio.gather(*(memory.put("note", user_id=eve, key=key) for key in ("k", "l"))),
        lambda: memory.add("note", user_id=eve, supersedes=[one.id]),
        lambda: memory.add_many([MemoryInput(content="note", user_id=eve, supersedes=[one.id])]),
        lambda: memory.add(content, user_id=eve, scope="s", on_duplicate="skip"),
        lambda: memory.add(content, user_id=eve, scope="s", on_duplicate="supersede"),
        lambda: memory.put("note", user_id=eve, key="k", supersedes=[other.id]),
        lambda: memory.add(content, user_id=eve, key="x", idempotency_key="once"),
        lambda: memory.put("note", user_id=eve, key="k"),
        lambda: memory.list(eve),
        lambda: memory.list(eve, scope="s", tag="t", as_of=datetime(2040, 1, 1, tzinfo=UTC)),
        lambda: memory.search(content, eve),
        lambda: memory.context(content, eve),
        lambda: memory.scopes(eve),
        lambda: memory.audit(eve),
        lambda: memory.restore([taken]),
        lambda: memory.delete_all(eve),
    ]
