"""Where an audit journal is kept: in an SQLite file or in PostgreSQL, chosen by the URL in `audit=`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from openproto.audit_buffer import AuditRow
from openproto.provider import AuditEntries
from openproto.requests import AuditQuery

_SCHEMA = "openproto_audit"
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


class Journal(ABC):
    """A store of audit entries that several clients may share; what it raises is typed."""

    @property
    @abstractmethod
    def place(self) -> str:
        """Where the entries are, for an operator; holds no password."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and make the table where it is missing."""

    @abstractmethod
    async def append(self, rows: Sequence[AuditRow]) -> None:
        """Write the entries, all or none; an add that was recorded before is passed over."""

    @abstractmethod
    async def entries(self, query: AuditQuery) -> AuditEntries:
        """Return the user's entries that the query selects, newest first."""

    @abstractmethod
    async def close(self) -> None:
        """Release everything, and wait for nothing that hangs; may be called twice."""


def journal_at(url: str) -> Journal:
    """Return the unopened journal at `url`; a ValueError says what such a URL looks like."""
    scheme = url.partition(":")[0]
    try:
        if scheme == "sqlite":
            return _sqlite(url)
        if scheme in ("postgresql", "postgres"):
            return _postgres(url)
    except ValueError:
        pass  # urllib's own text may repeat the URL, and the password in it
    raise ValueError(
        "audit= wants 'sqlite:///audit.db' (a relative path; an absolute one has a fourth slash), or "
        "'postgresql://user:password@host/database', to which ?schema=<a plain lower-case name> may be added"
    )


def _sqlite(url: str) -> Journal:
    from openproto.layers.sqlite_journal import SqliteJournal

    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or parts.query or parts.fragment or path in ("", ":memory:"):
        raise ValueError
    return SqliteJournal(Path(path))


def _postgres(url: str) -> Journal:
    from openproto.layers.postgres_journal import PostgresJournal

    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = options.pop("schema", _SCHEMA)
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError
    if find_spec("asyncpg") is None:
        raise ImportError("this audit journal needs asyncpg: pip install 'openproto[postgres]'", name="asyncpg")
    return PostgresJournal(parts._replace(query=urlencode(options)).geturl(), schema)
