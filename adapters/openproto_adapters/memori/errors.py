"""From the exceptions of SQLAlchemy, and of the drivers beneath it, to the protocol's: by class and code."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import exc

from openproto.errors import (
    ConflictError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ScopeDeniedError,
    UnauthorizedError,
)

_SQLITE: dict[int, tuple[type[OpenProtoError], str]] = {
    sqlite3.SQLITE_BUSY: (ProviderUnavailableError, "another program keeps a lock on the file: try again later"),
    sqlite3.SQLITE_LOCKED: (ProviderUnavailableError, "another call holds a lock on the table: try again"),
    sqlite3.SQLITE_FULL: (ProviderUnavailableError, "the disk is full: nothing was written; free some space"),
    sqlite3.SQLITE_IOERR: (ProviderUnavailableError, "the disk fails to read or write the file: nothing was written"),
    sqlite3.SQLITE_READONLY: (ScopeDeniedError, "the file in url= may only be read: look at its permissions"),
    sqlite3.SQLITE_PERM: (ScopeDeniedError, "the file in url= may not be used: look at its permissions"),
    sqlite3.SQLITE_CANTOPEN: (ProviderError, "the file in url= cannot be opened: look at its folder and permissions"),
    sqlite3.SQLITE_NOTADB: (ProviderError, "the file in url= is not a SQLite database: name another"),
    sqlite3.SQLITE_CORRUPT: (ProviderError, "the file in url= is damaged: restore it from a backup"),
}

# By SQLSTATE, the narrow before the wide: a code of two characters is a whole class.
_POSTGRES: dict[str, tuple[type[OpenProtoError], str]] = {
    "28": (UnauthorizedError, "PostgreSQL refuses this user or password: look at url="),
    "3D": (ProviderError, "the database named in url= does not exist: create it with CREATE DATABASE"),
    "42501": (ScopeDeniedError, "this role may not use Memori's tables: let their owner GRANT it the right"),
    "42P01": (ProviderError, "Memori's tables are missing: another program dropped them; open the client again"),
    "53100": (ProviderUnavailableError, "the disk of the PostgreSQL server is full: free some space"),
    "53": (ProviderUnavailableError, "PostgreSQL is short of connections or memory: lower width=, or raise its limits"),
    "55P03": (ProviderUnavailableError, "a lock was not to be had in time: try again"),
    "57014": (ProviderTimeoutError, "PostgreSQL cancelled the statement: raise statement_timeout"),
    "57": (ProviderUnavailableError, "PostgreSQL is starting up or shutting down: try again soon"),
    "08": (ProviderUnavailableError, "the connection to PostgreSQL was lost: try again"),
    "25006": (ProviderUnavailableError, "this PostgreSQL takes no writes now: it is a standby, or read-only"),
    "40": (ProviderUnavailableError, "PostgreSQL rolled the transaction back to keep others consistent: try again"),
}


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise into typed errors."""
    try:
        yield
    except (exc.SQLAlchemyError, OSError) as error:
        raise typed_error(error) from error


def typed_error(error: Exception) -> OpenProtoError:
    """Return the protocol's error, without the driver's words, which may repeat a memory."""
    if isinstance(error, exc.TimeoutError):
        return ProviderUnavailableError("no connection to the database became free: raise width=")
    if isinstance(error, exc.IntegrityError):
        return ConflictError("the database has another row in this place; try again")
    cause = error.orig if isinstance(error, exc.DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        name = getattr(cause, "sqlite_errorname", type(cause).__name__)
        unknown = (ProviderError, f"SQLite failed with {name}; look at the file in url=")
        # The low byte is the error, the others say more about it.
        kind, text = _SQLITE.get(getattr(cause, "sqlite_errorcode", 0) & 0xFF, unknown)
        return kind(text)
    state = getattr(cause, "sqlstate", None)
    for code in (state, state[:2]) if state else ():
        if code in _POSTGRES:
            kind, text = _POSTGRES[code]
            return kind(text)
    if isinstance(error, exc.OperationalError | exc.InterfaceError):
        return _no_connection(cause)
    if isinstance(error, OSError):
        return ProviderUnavailableError(f"the database cannot be reached ({type(error).__name__}); look at url=")
    return ProviderError(f"the database failed with {state or type(cause).__name__}; look at its log")


def _no_connection(cause: object) -> OpenProtoError:
    """Return the error for a connection that was not made or broke: libpq has no code for it."""
    attempt = getattr(cause, "pgconn", None)
    if attempt is not None and (attempt.needs_password or attempt.used_password):
        return UnauthorizedError("PostgreSQL refuses this user, password, or database: look at url=")
    return ProviderUnavailableError("PostgreSQL cannot be reached: is it running, and are host and port in url= right?")
