"""Where the memories are: a URL of SQLAlchemy, or the path of a SQLite file."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

_POSTGRES = ("postgresql", "postgres")


def database_url(given: str | Path) -> URL:
    """Return the URL of a database that Memori's tables can be in; a ValueError for anything else."""
    if isinstance(given, Path) or "://" not in given:
        return URL.create("sqlite", database=str(Path(given).expanduser().absolute()))
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        # Not chained: the message of either holds the URL, and so the password.
        raise ValueError("url= is not a database URL; postgresql://user@host/database is one") from None
    if url.drivername in _POSTGRES:
        url = url.set(drivername="postgresql+psycopg")
    if url.drivername not in ("postgresql+psycopg", "sqlite", "sqlite+pysqlite"):
        raise ValueError("url= must be of SQLite or, with psycopg, of PostgreSQL")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("url= must name a file: each connection would have a separate SQLite in memory")
    return url
