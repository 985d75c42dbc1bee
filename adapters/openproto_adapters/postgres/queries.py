"""Every statement of the postgres provider: one verb, one statement.

A change, its audit entry, and what it supersedes stand in one statement, so that a cancellation leaves all of it or
nothing. `{schema}` is openproto's schema and `{vector}` the one that holds pgvector; neither relies on search_path,
which is not ours to set behind a pooler. Parameters are the values; only fixed fragments are put together here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from openproto.requests import Filters
from openproto_adapters.postgres.records import COLUMNS
from openproto_adapters.postgres.row_security import EVERYBODY, Acting, name_users

# How many words one inner product can distinguish: pgvector adds up in single precision, which holds 24 bits.
MASK_BITS = 20

# Every vector of a store is of the store's model, so a record need not remember its own.
MODEL = "(SELECT model FROM {schema}.store)"
RECORD = ", ".join([*(f"m.{column}" for column in COLUMNS), f"{MODEL} AS embedding_model"])

# The store's model is compared inside each statement that reads or writes vectors: a re-embedding may have switched
# it since this process opened.
STORE_FITS = "EXISTS (SELECT FROM {schema}.store WHERE model IS NOT DISTINCT FROM $1)"

ADDED_COLUMNS = """id, user_id, content, scope, tags, source, confidence, valid_from, valid_to, extensions,
        words, more_words, embedding, supersedes"""

# Shared by both kinds of add: $1 the model, $2 the id, $3 the user, $4 to $14 the memory, $15 the app, $16 the request.
_VALUES = "$4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14"
_ADDED = """audited AS (
    INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
    SELECT user_id, created_at, $15, 'add', id::text, scope, $16 FROM new
)
SELECT created_at FROM new
"""

# A memory whose key is its id, which is new: nothing is to be looked up. A retry looks whether the attempt before it
# wrote the memory, which may have been deleted since and must not come back, or is still writing it.
_NEW = f"""
WITH new AS (
    INSERT INTO {{schema}}.memories ({ADDED_COLUMNS})
    SELECT $2, $3, {_VALUES}, '{{}}' WHERE {STORE_FITS}<unwritten>
    RETURNING id, user_id, scope, created_at
), {_ADDED}
"""
UNWRITTEN = """ AND NOT EXISTS (
        SELECT FROM {schema}.audit WHERE audit.user_id = <user> AND action = 'add' AND memory_id = <id>::text)
    ON CONFLICT DO NOTHING"""
RETRY_NEW = _NEW.replace("<unwritten>", UNWRITTEN.replace("<user>", "$3").replace("<id>", "$2::uuid"))
ADD_NEW = _NEW.replace("<unwritten>", "")

# $17 the idempotency key, $18 the fingerprint, $19 what it supersedes, $20 the key and $21 its hash.
_ADD = f"""
WITH moment AS MATERIALIZED (
    SELECT clock_timestamp() AS now
), claimed AS (
    INSERT INTO {{schema}}.keys (memory_id, user_id, idempotency_key, fingerprint)
    SELECT $2, $3, $17, $18 WHERE {STORE_FITS}<all found>
    ON CONFLICT DO NOTHING
    RETURNING memory_id
), new AS (
    INSERT INTO {{schema}}.memories ({ADDED_COLUMNS}, created_at, key, key_hash<starts>)
    SELECT memory_id, $3, {_VALUES}, $19::uuid[], (SELECT now FROM moment), $20, $21<started> FROM claimed
    RETURNING id, user_id, scope, created_at, valid_from
), <supersede>{_ADDED}
"""
# In the order of ids, here and below: writers that supersede the same records in another order would deadlock.
_OLD = """old AS (
    SELECT m.id FROM {schema}.memories m WHERE m.user_id = $3 AND m.id = ANY($19::uuid[]) ORDER BY m.id FOR UPDATE
)"""
_SUPERSEDE = """superseded AS (
    UPDATE {schema}.memories m
    SET superseded_by = new.id, superseded_at = least(m.superseded_at, new.valid_from), revision = m.revision + 1,
        successors = m.successors || new.id, handovers = m.handovers || new.valid_from
    FROM new, old WHERE m.user_id = $3 AND m.id = old.id
    RETURNING m.user_id
), """
ADD_SUPERSEDING = (
    _ADD.replace("WITH moment", f"WITH {_OLD}, moment")
    .replace("<all found>", " AND (SELECT count(*) FROM old) = cardinality($19::uuid[])")
    .replace("<supersede>", _SUPERSEDE)
    .replace("<starts>", ", starts_by_handover")
    .replace("<started>", ", $9::timestamptz IS NULL")
    .replace("$9, $10", "coalesce($9, (SELECT now FROM moment)), $10")
    .replace(
        "SELECT created_at FROM new", "SELECT created_at, ARRAY(SELECT user_id FROM superseded) AS owners FROM new"
    )
)
# Most memories supersede nothing, and what is not asked for costs the server a tenth of the statement.
ADD = _ADD.replace("<all found>", "").replace("<supersede>", "").replace("<starts>", "").replace("<started>", "")

# Why an add wrote nothing: the store's model, and what its key, or the id that is one, wrote before, where it did.
EXPLAIN_ADD = f"""
SELECT store.model, store.dim, keys.fingerprint, {RECORD}
FROM {{schema}}.store
LEFT JOIN {{schema}}.keys ON keys.user_id = $1 AND keys.idempotency_key = $2
LEFT JOIN {{schema}}.memories m ON m.id = coalesce(keys.memory_id, $3) AND m.user_id = $1
"""

GET = f"SELECT {RECORD} FROM {{schema}}.memories m WHERE m.id = $1"
GET_OF_USER = f"{GET} AND m.user_id = $2"

OWN = "m.user_id = {}"

GET_BY_KEY = f"SELECT {RECORD} FROM {{schema}}.memories m WHERE m.user_id = $1 AND m.key_hash = $2 AND m.key = $3"

LIST = f"SELECT {RECORD} FROM {{schema}}.memories m WHERE <filters> ORDER BY m.created_at DESC, m.id DESC LIMIT $1"

SCOPES = """
SELECT m.user_id, m.scope, count(*) FROM {schema}.memories m WHERE <filters> AND m.scope IS NOT NULL
GROUP BY m.user_id, m.scope
"""

# A look into the index for each user, however many records there are of them.
USERS = """
WITH RECURSIVE found AS (
    (SELECT m.user_id FROM {schema}.memories m WHERE m.user_id > $1 ORDER BY m.user_id LIMIT 1)
    UNION ALL SELECT (
        SELECT m.user_id FROM {schema}.memories m WHERE m.user_id > found.user_id ORDER BY m.user_id LIMIT 1
    ) FROM found WHERE found.user_id IS NOT NULL
)
SELECT user_id FROM found WHERE user_id IS NOT NULL LIMIT $2
"""

AUDIT = """
SELECT user_id, timestamp, app, action, memory_id, scope, request_id FROM {schema}.audit
WHERE user_id = $1 AND ($2::text IS NULL OR app = $2) AND ($3::text IS NULL OR memory_id = $3)
  AND timestamp >= coalesce($4, '-infinity'::timestamptz)
ORDER BY timestamp DESC, number DESC LIMIT $5
"""

WRITE_READS = """
INSERT INTO {schema}.audit (user_id, timestamp, app, action, memory_id, scope, request_id)
SELECT * FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
"""

ABOUT = """
SELECT current_database() || coalesce(' on ' || host(inet_server_addr()), ''),
    current_setting('server_version'), extversion,
    (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
        WHERE relkind = 'r' AND relnamespace = '{schema}'::regnamespace)::text
FROM pg_extension WHERE extname = 'vector'
"""

ADOPT_MODEL = """
UPDATE {schema}.store SET model = $1, dim = $2 WHERE model IS NULL AND NOT EXISTS (SELECT FROM {schema}.memories)
"""

STORE = "SELECT model, dim, EXISTS (SELECT FROM {schema}.memories) AS has_memories, rules FROM {schema}.store"


@dataclass(frozen=True, slots=True)
class Queries:
    """The statements for one schema of one database."""

    schema: str
    vector: str

    def sql(self, template: str) -> str:
        """Return a statement that meets no rows of users, the names filled in."""
        return _named(template, self.schema, self.vector)

    def acting(self, acting: Acting, template: str, *args: Any) -> tuple[Any, ...]:
        """Return a statement that acts for these users, and its arguments."""
        return _named(template, self.schema, self.vector, len(args) + 1), *args, acting

    def operator(self, template: str, *args: Any) -> tuple[Any, ...]:
        """Return a statement that acts for everybody, and its arguments."""
        return self.acting(EVERYBODY, template, *args)


@lru_cache(maxsize=512)
def _named(template: str, schema: str, vector: str, acting: int | None = None) -> str:
    if acting is not None:
        template = name_users(template, acting)
    for column in ("m.words", "m.more_words"):
        template = template.replace(f"{{mask:{column}}}", _mask(column))
    return template.replace("{schema}", schema).replace("{vector}", vector)


def _mask(column: str) -> str:
    """Return the expression for which of the query's words a row has: $4 holds the first of them, $5 the others."""
    first, others = (
        f"(-({column} OPERATOR({{vector}}.<#>) (SELECT ${number}::{{vector}}.sparsevec)))::bigint" for number in (4, 5)
    )
    return f"({first} | ({others} << {MASK_BITS}))"


class Arguments:
    """The arguments of a statement, and the fixed fragments that refer to them: conditions and assignments."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)
        self._conditions: list[str] = []
        self._assignments: list[str] = []
        self.assigned: dict[str, tuple[str, Any]] = {}
        """Of each column that is assigned a value the SQL type, and the value."""

    def add(self, condition: str, *values: Any) -> None:
        """Add a condition whose `{}`s stand for `values`."""
        self._conditions.append(condition.format(*(self._parameter(value) for value in values)))

    def add_filters(self, filters: Filters, *, user: bool = True) -> None:
        """Add what every reading verb can be narrowed by."""
        if user:
            self.add(OWN, filters.user_id)
        if filters.scope is not None:
            # Compared as text, never as a pattern: `_` and `%` are ordinary characters of a scope.
            self.add("(m.scope = {0} OR starts_with(m.scope, {0} || '/'))", filters.scope)
        for tag in filters.tags:
            self.add("{} = ANY(m.tags)", tag)

    def add_current(self, as_of: datetime | None) -> None:
        """Add that the record is current at `as_of`, or now."""
        self.add(
            "(m.valid_from IS NULL OR m.valid_from <= {0}) AND (m.valid_to IS NULL OR m.valid_to > {0})"
            " AND (m.superseded_at IS NULL OR m.superseded_at > {0})",
            as_of,
        )

    def assign(self, column: str, kind: str, value: Any) -> None:
        """Add the assignment of a value of an SQL type to a column."""
        self.assigned[column] = kind, value
        self.assign_expression(column, f"{self.parameter(value)}::{kind}")

    def parameter(self, value: Any) -> str:
        """Add a value and return how a statement refers to it."""
        self.values.append(value)
        return f"${len(self.values)}"

    def assign_expression(self, column: str, expression: str) -> None:
        """Add the assignment of an expression to a column."""
        self._assignments.append(f", {column} = {expression}")

    def fill(self, template: str) -> str:
        """Return the statement, the conditions in place of `<filters>`, the assignments in that of `<changes>`."""
        conditions = " AND ".join(self._conditions or ["true"])
        return template.replace("<filters>", f"({conditions})").replace("<changes>", "".join(self._assignments))

    def _parameter(self, value: Any) -> str:
        position = self.parameter(value)
        # A moment that is not given is the server's now; a type is said where PostgreSQL could not infer one.
        kind = _TYPES.get(type(value), "text")
        return f"coalesce({position}::timestamptz, now())" if kind == "timestamptz" else f"{position}::{kind}"


_TYPES = {str: "text", datetime: "timestamptz", type(None): "timestamptz", UUID: "uuid"}
