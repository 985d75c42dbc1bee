"""The tables: versioned migrations, put together as one script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from openproto_adapters.postgres.citus.cluster import distribution
from openproto_adapters.postgres.row_security import turn_on
from openproto_adapters.postgres.vectors import MOST_INCLUDED_DIMENSIONS

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")

# Any number will do, as long as every openproto takes the same: the lock belongs to this purpose in one database.
_LOCK = 0x6F70656E_70726F74 & 0x7FFF_FFFF_FFFF_FFFF


def check_name(schema: str) -> str:
    """Return `schema` if it may stand in SQL unquoted."""
    if not _NAME.fullmatch(schema):
        raise ValueError("schema must be a plain lower-case SQL name, such as 'openproto'")
    return schema


def quoted_name(name: str) -> str:
    """Return an SQL name in quotes, as one that is not ours may need."""
    return '"' + name.replace('"', '""') + '"'


def schema_script(schema: str, *, row_security: bool = True, distribute: bool = False) -> str:
    """Return the SQL that brings a database to the newest version; harmless where it is there already.

    With `distribute` it spreads the tables over the workers of a Citus cluster as well, without row-level security.

    Sent as one string it is one transaction, so a process that dies in the middle leaves nothing behind.
    """
    parts = [
        f"SELECT pg_advisory_xact_lock({_LOCK});",
        # Waiting for that lock does not show a session what others made meanwhile; locking a relation does.
        "SELECT FROM pg_catalog.pg_namespace LIMIT 1;",
        f"CREATE SCHEMA IF NOT EXISTS {schema};",
        "CREATE EXTENSION IF NOT EXISTS vector;",
        f"CREATE TABLE IF NOT EXISTS {schema}.migrations "
        "(version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());",
        "SELECT set_config('search_path', (SELECT quote_ident(nspname) || ', pg_catalog' FROM pg_extension "
        "JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'), true);",
    ]
    for version, sql in migrations():
        parts.append(
            f"DO $migration$ BEGIN IF NOT EXISTS (SELECT FROM {schema}.migrations WHERE version = {version}) THEN\n"
            f"{sql.replace('{schema}', schema)}\n"
            f"INSERT INTO {schema}.migrations (version) VALUES ({version});\nEND IF; END $migration$;"
        )
    if distribute:
        parts.append(distribution(schema))
    elif row_security:
        parts.append(turn_on(schema))
    return "\n\n".join(parts) + "\n"


def includes_embedding(dim: int | None) -> bool:
    """Say whether vectors of that length fit into the covering index; longer ones are read from the table."""
    return dim is None or dim <= MOST_INCLUDED_DIMENSIONS


def cover_index(schema: str, name: str, embedding: str | None, *, concurrently: bool = False) -> str:
    """Return the SQL of the covering index, with the column that holds the vectors where they fit into it."""
    columns = "valid_from, valid_to, superseded_at, words" + (f", {embedding}" if embedding else "")
    return (
        f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{name} ON {schema}.memories "
        f"(user_id, created_at DESC, id DESC) INCLUDE ({columns});"
    )


def cover_without_embedding(schema: str) -> str:
    """Return the SQL that makes the covering index of an empty store again, for vectors that would not fit into it."""
    index = f"{schema}.memories_by_user"
    return (
        f"SELECT pg_advisory_xact_lock({_LOCK});\n"
        f"DO $cover$ BEGIN IF pg_get_indexdef('{index}'::regclass) LIKE '%embedding%' THEN\n"
        f"DROP INDEX {index};\n{cover_index(schema, 'memories_by_user', None)}\nEND IF; END $cover$;"
    )


@cache
def migrations() -> Sequence[tuple[int, str]]:
    """Return each migration's version and text, oldest first; reads files where it is called first."""
    from importlib.resources import files  # which takes as long to import as the rest of the provider

    folder = files("openproto_adapters.postgres").joinpath("migrations")
    found = ((_MIGRATION.fullmatch(entry.name), entry) for entry in folder.iterdir())
    return sorted((int(match[1]), entry.read_text(encoding="utf-8")) for match, entry in found if match)
