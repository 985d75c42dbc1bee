"""The tables of the file: versioned migrations, each applied once."""

from __future__ import annotations

import re
import sqlite3
from functools import lru_cache
from pathlib import Path

from openproto.errors import ProviderError
from openproto_adapters.sqlite.word_index import spelled

SCHEMA_VERSION = 7

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of the file's tables, 0 where it has none."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'store'").fetchone() is None:
        return 0
    (version,) = connection.execute("SELECT version FROM store").fetchone() or (0,)
    return int(version)


def check_version(path: Path, version: int) -> None:
    """Raise ProviderError for tables that a newer openproto made."""
    if version > SCHEMA_VERSION:
        raise ProviderError(
            f"{path} was written by a newer openproto (schema {version}, this one knows {SCHEMA_VERSION}); "
            "upgrade openproto"
        )


def upgrade(connection: sqlite3.Connection) -> None:
    """Apply the migrations that the file lacks; the caller holds the write lock and commits."""
    # Looked at under the lock: another process may have been faster.
    version = schema_version(connection)
    connection.create_function("packed_terms", 1, bytes.fromhex)
    connection.create_function("spelled_terms", 1, spelled)
    for number, statements in migrations():
        if number > version:
            for statement in statements:
                connection.execute(statement)
            connection.execute(
                "INSERT INTO store (only_row, version) VALUES (1, :now) ON CONFLICT DO UPDATE SET version = :now",
                {"now": number},
            )


@lru_cache
def migrations() -> list[tuple[int, list[str]]]:
    """Return each migration's version and statements, oldest first."""
    from importlib.resources import files  # which takes as long to import as the rest of the provider

    folder = files("openproto_adapters.sqlite").joinpath("migrations")
    found = ((_MIGRATION.fullmatch(entry.name), entry) for entry in folder.iterdir())
    texts = sorted((int(match[1]), entry.read_text(encoding="utf-8")) for match, entry in found if match)
    return [(number, _statements(text)) for number, text in texts]


def _statements(text: str) -> list[str]:
    found = [""]
    for line in text.splitlines():
        found[-1] += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(found[-1]):  # which a semicolon inside a trigger does not make it
            found.append("")
    return [statement for statement in found if statement.strip()]
