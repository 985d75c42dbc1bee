"""The postgres provider: PostgreSQL with pgvector over asyncpg, natively async; one verb is one statement."""

from openproto_adapters.postgres.provider import Postgres

__all__ = ["Postgres"]
