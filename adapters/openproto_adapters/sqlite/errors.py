"""SQLite's errors as the protocol's, by their result codes."""

from __future__ import annotations

import sqlite3

from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError

CLOSED = "the client was closed while this call was running; use an open one"
_ERRORS: dict[int, tuple[type[ProviderError], str]] = {
    sqlite3.SQLITE_BUSY: (
        ProviderUnavailableError,
        "the database file is locked: another process has been writing to it for longer than lock_timeout; try again",
    ),
    sqlite3.SQLITE_FULL: (
        ProviderUnavailableError,
        "the disk that holds the database file is full: nothing was written; free some space and try again",
    ),
    sqlite3.SQLITE_IOERR: (
        ProviderUnavailableError,
        "reading or writing the database file failed: nothing was written; look at the disk and its mount",
    ),
    sqlite3.SQLITE_INTERRUPT: (ProviderUnavailableError, CLOSED),
    sqlite3.SQLITE_CANTOPEN: (
        ProviderError,
        "the database file cannot be opened: look at path=, its folder, and their permissions",
    ),
    sqlite3.SQLITE_READONLY: (
        ProviderError,
        "the database file or its folder is read-only for this user; look at their permissions",
    ),
    sqlite3.SQLITE_PERM: (ProviderError, "this user may not open the database file; look at its permissions"),
    sqlite3.SQLITE_NOTADB: (
        ProviderError,
        "the file at path= is not an SQLite database: choose another path",
    ),
    sqlite3.SQLITE_CORRUPT: (
        ProviderError,
        "the database file is damaged: restore it from a copy, or save what is left with sqlite3's .recover",
    ),
}


def typed_error(error: sqlite3.Error) -> OpenProtoError:
    """Return the protocol's error for SQLite's, by its result code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    unknown = (ProviderError, f"SQLite failed ({name}): nothing was written; look at the file at path=")
    kind, text = _ERRORS.get(code, unknown)
    return kind(text, provider="sqlite")


def as_typed(error: Exception) -> Exception:
    """Return the protocol's error where it is one of SQLite's, which caused it, and any other as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    typed = typed_error(error)
    typed.__cause__ = error
    return typed
