"""Applying the migrations: by whichever process comes first, under a lock that the others wait for."""

from __future__ import annotations

import asyncpg

from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError, ScopeDeniedError
from openproto_adapters.postgres.citus.cluster import PGVECTOR, notice
from openproto_adapters.postgres.errors import CAUGHT, typed_error
from openproto_adapters.postgres.pool import Database
from openproto_adapters.postgres.row_security import STATE, RowSecurity
from openproto_adapters.postgres.schema import migrations, schema_script

_LACKING = asyncpg.UndefinedFileError | asyncpg.UndefinedObjectError | asyncpg.FeatureNotSupportedError


async def migrate(connection: asyncpg.Connection, schema: str, *, row_security: bool = True) -> Database:
    """Bring the database to the newest version and return what it is.

    Row-level security is turned on where the role may do that; it is never turned off. New tables are distributed where
    the database is the coordinator of a Citus cluster.
    """
    newest = migrations()[-1][0]
    if (version := await _version(connection, schema)) > newest:
        raise ProviderError(
            f"the tables in schema {schema!r} were made by a newer openproto (version {version}, this one knows "
            f"{newest}); upgrade openproto"
        )
    found = await _database(connection, schema)
    distribute = found.cluster is not None and (version == 0 or found.cluster.is_distributed)
    if found.cluster is not None and distribute:
        found.cluster.check()
    if version < newest or (row_security and not distribute and await _may_secure(connection, schema)):
        try:
            await connection.execute(schema_script(schema, row_security=row_security, distribute=distribute))
        except CAUGHT as error:
            raise _why_not(error, schema, distribute=distribute) from error
        found = await _database(connection, schema)
    return found


async def check_replica(connection: asyncpg.Connection, schema: str) -> Database:
    """Return what `migrate` does of a replica, which has the tables of its primary."""
    if await _version(connection, schema) < migrations()[-1][0]:
        raise ProviderUnavailableError(
            f"read_url= leads to a database without openproto's newest tables in schema {schema!r}: wait if it is a "
            "replica that is behind, else name a replica of the server at url=",
            provider="postgres",
        )
    return await _database(connection, schema)


async def _database(connection: asyncpg.Connection, schema: str) -> Database:
    rows = await connection.fetch(
        "SELECT extname, nspname, extversion FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace "
        "WHERE extname IN ('vector', 'citus')"
    )
    found = {name: (where, version) for name, where, version in rows}
    cluster = await notice(connection, schema, found["citus"][1]) if "citus" in found else None
    return Database(found["vector"][0] if "vector" in found else "public", cluster)


async def _may_secure(connection: asyncpg.Connection, schema: str) -> bool:
    (row,) = await connection.fetch(STATE.replace("{schema}", schema))
    state = RowSecurity(*row)
    return state.may_alter and not state.is_on


async def _version(connection: asyncpg.Connection, schema: str) -> int:
    if await connection.fetchval("SELECT to_regclass($1)", f"{schema}.migrations") is None:
        return 0
    return await connection.fetchval(f"SELECT max(version) FROM {schema}.migrations") or 0


def _why_not(error: BaseException, schema: str, *, distribute: bool) -> OpenProtoError:
    if isinstance(error, asyncpg.InsufficientPrivilegeError):
        return ScopeDeniedError(
            f"this role may not create openproto's tables in schema {schema!r}: let the database's owner run what "
            "`openproto schema --provider postgres` prints, and grant this role their use",
            provider="postgres",
        )
    if distribute and isinstance(error, asyncpg.PostgresSyntaxError | asyncpg.InternalServerError | _LACKING):
        return ProviderError(
            f"Citus could not distribute openproto's tables in schema {schema!r}, so none was made: give every server "
            f"of the cluster the pgvector of the coordinator, {PGVECTOR} or newer, and look at the coordinator's log",
            provider="postgres",
        )
    if isinstance(error, asyncpg.UndefinedFileError | asyncpg.FeatureNotSupportedError):
        return ProviderError(
            "this PostgreSQL lacks pgvector: install it on the server (Debian: postgresql-<version>-pgvector), "
            "then open the client again",
            provider="postgres",
        )
    if isinstance(error, asyncpg.UndefinedObjectError):
        return ProviderError(
            "this PostgreSQL has a pgvector older than 0.7, which lacks halfvec: upgrade it, then run "
            "ALTER EXTENSION vector UPDATE",
            provider="postgres",
        )
    return typed_error(error)
