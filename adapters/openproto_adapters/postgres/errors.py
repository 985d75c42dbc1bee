"""From asyncpg's exceptions to the protocol's, by class; imported only once asyncpg is."""

from __future__ import annotations

import asyncpg

from openproto.errors import (
    ConflictError,
    InvalidRequestError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    ScopeDeniedError,
    UnauthorizedError,
)

# The first class that fits decides, so the narrow ones stand before the wide. PostgreSQL's own text is never passed
# on: it may quote the row, and so memory content.
_ERRORS: tuple[tuple[type[BaseException], type[OpenProtoError], str], ...] = (
    (asyncpg.InvalidPasswordError, UnauthorizedError, "PostgreSQL refuses the password: look at url="),
    (
        asyncpg.InvalidAuthorizationSpecificationError,
        UnauthorizedError,
        "PostgreSQL does not let this role connect: look at the role in url= and the server's pg_hba.conf",
    ),
    (
        asyncpg.InvalidCatalogNameError,
        ProviderError,
        "the database named in url= does not exist: create it with CREATE DATABASE",
    ),
    (
        asyncpg.InsufficientPrivilegeError,
        ScopeDeniedError,
        "this role may not use openproto's tables: let their owner GRANT it USAGE on the schema and all on the tables",
    ),
    (
        asyncpg.UntranslatableCharacterError,
        InvalidRequestError,
        "the database's encoding has no such character, so nothing was written: use a database of encoding UTF8",
    ),
    (
        asyncpg.InvalidSchemaNameError,
        ProviderError,
        "no schema to work in: the role's search_path is empty or names none that exists; set it, or pass schema=",
    ),
    (
        asyncpg.UndefinedObjectError,
        ProviderError,
        "PostgreSQL does not know a setting, type, or role that was named: look at the options after '?' in url=, "
        "which are sent to the server as settings",
    ),
    (
        asyncpg.UniqueViolationError,
        ConflictError,
        "key: another record of this user bears it; put() replaces that record",
    ),
    (asyncpg.CheckViolationError, InvalidRequestError, "valid_to must be later than valid_from"),
    (
        asyncpg.DiskFullError,
        ProviderUnavailableError,
        "the disk of the PostgreSQL server is full: nothing was written; free some space and try again",
    ),
    (
        asyncpg.ReadOnlySQLTransactionError,
        ProviderUnavailableError,
        "this PostgreSQL takes no writes now: it is a standby, or read-only",
    ),
    (
        asyncpg.TooManyConnectionsError,
        ProviderUnavailableError,
        "PostgreSQL has no connection left: lower pool_max=, raise max_connections, or use PgBouncer",
    ),
    (
        asyncpg.QueryCanceledError,
        ProviderTimeoutError,
        "PostgreSQL cancelled the query: raise statement_timeout, which ended it",
    ),
    (
        asyncpg.UndefinedTableError,
        ProviderError,
        "openproto's tables are missing: another process dropped them, or schema= is wrong; open the client again",
    ),
    (
        asyncpg.RaiseError,
        ProviderError,
        "a statement did not say for which user it acts, so row-level security withheld everything: report it",
    ),
    (
        asyncpg.InternalServerError,  # also what a dropped type ends in
        ProviderError,
        "PostgreSQL failed inside, as it does where openproto's schema was dropped: open the client again, or look at "
        "the server's log",
    ),
    (
        asyncpg.InsufficientResourcesError,
        ProviderUnavailableError,
        "PostgreSQL is out of memory or of another resource: nothing was written; look at the server's log",
    ),
    (
        asyncpg.CannotConnectNowError,
        ProviderUnavailableError,
        "PostgreSQL is starting up or shutting down: try again soon",
    ),
    (
        asyncpg.OperatorInterventionError,
        ProviderUnavailableError,
        "PostgreSQL ended the connection: the server restarts, or an administrator closed it; try again soon",
    ),
    (
        asyncpg.PostgresConnectionError,
        ProviderUnavailableError,
        "the connection to PostgreSQL was lost: the server is down or the network failed; try again soon",
    ),
    (
        asyncpg.LockNotAvailableError,
        ProviderUnavailableError,
        "a lock on openproto's tables was not to be had in time: something else is working on them; try again soon",
    ),
    (
        asyncpg.TransactionRollbackError,
        ProviderUnavailableError,
        "PostgreSQL rolled the statement back to keep others consistent: nothing was written; try again",
    ),
    (
        asyncpg.InvalidSQLStatementNameError,
        ProviderError,
        "a prepared statement vanished: behind a PgBouncer older than 1.21, pass statement_cache_size=0",
    ),
    (
        asyncpg.DuplicatePreparedStatementError,
        ProviderError,
        "a prepared statement was another client's: behind a PgBouncer older than 1.21, pass statement_cache_size=0",
    ),
    (
        asyncpg.InternalClientError,
        ProviderUnavailableError,
        "the connection to PostgreSQL was lost while it was in use; try again soon",
    ),
    (
        asyncpg.InterfaceError,
        ProviderUnavailableError,
        "the connection to PostgreSQL was closed while it was in use; try again soon",
    ),
    (
        OSError,
        ProviderUnavailableError,
        "PostgreSQL cannot be reached at {at}: is the server running, and are host and port in url= right?",
    ),
)

CAUGHT = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


def typed_error(error: BaseException, at: str = "its address") -> OpenProtoError:
    """Return the protocol's error for one of `CAUGHT`; `at` is the server's address."""
    for theirs, ours, text in _ERRORS:
        if isinstance(error, theirs):
            return ours(text.replace("{at}", at), provider="postgres")
    state = getattr(error, "sqlstate", None) or type(error).__name__
    return ProviderError(
        f"PostgreSQL failed with {state}, which openproto does not expect: the server's log says what it was; if that "
        "is no fault of the database, report it",
        provider="postgres",
    )
