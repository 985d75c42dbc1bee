"""What the tests of the sqlite provider share: clients, and a look at the file next to the provider."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from openproto_adapters.sqlite import Sqlite
from openproto_adapters.sqlite.database import Database
from openproto_adapters.sqlite.word_index import spelled

from openproto import AsyncMemory


def memory(path: Path, embedder: Any = "none", *, retries: int = 0, **options: Any) -> AsyncMemory:
    """Return a client of the file that does not wait for the disk at every commit."""
    return AsyncMemory(Sqlite(path, embedder=embedder, **{"synchronous": "normal", **options}), retries=retries)


def database_of(client: AsyncMemory) -> Database:
    provider = client._session.provider
    assert isinstance(provider, Sqlite)
    return provider._db


def rows(path: Path, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path, timeout=10)) as db, db:
        return db.execute(statement, parameters).fetchall()


def indexed(path: Path) -> set[tuple[int, str]]:
    """Return the numbers and the terms that the index of words has."""
    with closing(sqlite3.connect(path, timeout=10)) as db:
        db.execute("CREATE VIRTUAL TABLE temp.indexed USING fts5vocab(main, words, instance)")
        return {*db.execute("SELECT doc, term FROM indexed")}


def check_consistent(path: Path) -> int:
    """Check that no memory is half there, and return how many there are."""
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    rows(path, "INSERT INTO words (words) VALUES ('integrity-check')")  # FTS5's own; raises when it finds a fault
    numbers = rows(path, "SELECT number FROM memories")
    held = rows(path, "SELECT number, packed FROM terms WHERE number <= (SELECT indexed FROM store)")
    assert indexed(path) == {(number, term) for number, terms in held for term in spelled(terms).split()}
    assert rows(path, "SELECT number FROM terms EXCEPT SELECT number FROM memories") == []
    lost = "SELECT number FROM memories WHERE number <= (SELECT indexed FROM store) EXCEPT SELECT number FROM terms"
    assert rows(path, lost) == []
    missing = rows(path, "SELECT id FROM memories WHERE id NOT IN (SELECT memory_id FROM audit WHERE action = 'add')")
    assert missing == []
    unknown = rows(
        path,
        "SELECT memory_id FROM audit AS a WHERE action = 'add' AND memory_id NOT IN (SELECT id FROM memories) "
        "AND NOT EXISTS (SELECT 1 FROM audit AS d WHERE d.action = 'delete' AND d.memory_id = a.memory_id)",
    )
    assert unknown == []
    return len(numbers)
