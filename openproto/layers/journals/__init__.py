"""Where an audit journal is kept: in an SQLite file or in PostgreSQL, chosen by the URL in `audit=`."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from openproto.layers.journals.journal import Journal

_SCHEMA = "openproto_audit"
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


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
    from openproto.layers.journals.sqlite import SqliteJournal

    parts = urlsplit(url)
    path = unquote(parts.path)[1:]
    if parts.netloc or parts.query or parts.fragment or path in ("", ":memory:"):
        raise ValueError
    return SqliteJournal(Path(path))


def _postgres(url: str) -> Journal:
    from openproto.layers.journals.postgres import PostgresJournal

    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    schema = options.pop("schema", _SCHEMA)
    if not _SCHEMA_NAME.fullmatch(schema):
        raise ValueError
    if find_spec("asyncpg") is None:
        raise ImportError("this audit journal needs asyncpg: pip install 'openproto[postgres]'", name="asyncpg")
    return PostgresJournal(parts._replace(query=urlencode(options)).geturl(), schema)
