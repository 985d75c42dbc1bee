"""Statements about one user, run by the server that holds the user's shards."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from openproto.errors import ProviderUnavailableError
from openproto.fanout import gather_all
from openproto_adapters.postgres import queries, schema
from openproto_adapters.postgres.queries import Queries
from openproto_adapters.postgres.reindexing import HOLD_WRITERS, LOCK_TIMEOUT
from openproto_adapters.postgres.row_security import Acting, users_of

if TYPE_CHECKING:
    from openproto_adapters.postgres.pool import Pool

T = TypeVar("T")
R = TypeVar("R")

# A recursive statement cannot be distributed. Grouped by the column that distributes them, each shard is asked for a
# page only.
_USERS = """
SELECT m.user_id FROM {schema}.memories m WHERE m.user_id > $1 GROUP BY m.user_id ORDER BY m.user_id LIMIT $2
"""
# Whether it holds memories is asked apart, for every worker would have to answer.
_STORE = "SELECT model, dim, model IS NOT NULL AS has_memories, rules FROM {schema}.store"
# Statements run on the shards, which LOCK TABLE does not reach. Changing nothing of a table locks them.
_HOLD_WRITERS = f"""
SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
ALTER TABLE {{schema}}.memories ALTER confidence DROP DEFAULT;
"""
# Citus leads these to the one shard by itself, in less time, and in half of that where they read one table alone.
_ROUTED = (queries.GET, queries.GET_BY_KEY, queries.LIST.partition("<filters>")[0])
_INSTEAD = {queries.USERS: _USERS, queries.STORE: _STORE, HOLD_WRITERS: _HOLD_WRITERS}

_MODEL = "SELECT model FROM {schema}.store"
_MODEL_HOLDS = 1.0
"""Seconds for which a store is taken to have the client's own model, once it was seen to have it."""

_WRITES = re.compile(r"\b(INSERT|UPDATE|DELETE)\b")
_NO_COLUMNS = re.compile(r"\bSELECT FROM ")
_PARAMETER = re.compile(r"\$(\d+)")
_TABLES = r"\.(memories|keys|audit|store)\b"

# While a shard moves, its writers wait, then find it gone from where they were sent.
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8)


class ClusterQueries(Queries):
    """The statements as Citus takes them from the coordinator."""

    def sql(self, template: str) -> str:
        """Return a statement, the names filled in."""
        # Citus passes an empty list of columns on as a syntax error.
        return super().sql(_NO_COLUMNS.sub("SELECT 1 FROM ", _INSTEAD.get(template, template)))

    def acting(self, acting: Acting, template: str, *args: Any) -> tuple[Any, ...]:
        """Return a statement and its arguments; there are no policies here that ask for whom it acts."""
        return self.sql(template), *args


class Shards:
    """Runs statements on a cluster: what acts for one user where the user is, all else over the coordinator."""

    at_once = 4
    """Users whose part of a batch is written at the same time."""

    def __init__(self, queries: ClusterQueries, own_model: Callable[[], str | None]) -> None:
        self._queries = queries
        self._own_model = own_model
        self._calls: dict[str, str] = {}
        self._model_seen_at = -math.inf

    async def fetch(self, connection: Any, acting: Acting, template: str, *args: Any) -> Sequence[Any]:
        """Run one statement and return its rows."""
        users = users_of(acting)
        try:
            if template.startswith(_ROUTED):
                return await self._read(connection, template, *args)
            if len(users) != 1:
                rows: Sequence[Any] = await connection.fetch(self._queries.sql(template), *args)
                return rows
            call = self._calls.get(template) or await self._learn(connection, template)
            return await self._patiently(connection, call, *args, users[0])
        except asyncpg.PostgresConnectionError as error:
            if connection.is_closed():
                raise
            raise ProviderUnavailableError(
                "a worker of the Citus cluster cannot be reached, and these memories are on it: look at it with "
                "SELECT * FROM citus_check_cluster_node_health() on the coordinator; users on other workers are served",
                provider="postgres",
            ) from error

    async def has_memories(self, pool: Pool) -> bool:
        """Say whether any user has a memory, which every worker must be asked."""
        ((found,),) = await pool.fetch(self._queries.sql("SELECT EXISTS (SELECT FROM {schema}.memories)"))
        return bool(found)

    async def each_user(
        self, write: Callable[[list[T]], Awaitable[Sequence[R] | None]], items: Iterable[T], user_of: Callable[[T], str]
    ) -> list[R]:
        """Write the items of each user in one statement, a few users at once, and return all outcomes in order."""
        of_user: dict[str, list[tuple[int, T]]] = {}
        for number, item in enumerate(items):
            of_user.setdefault(user_of(item), []).append((number, item))
        free = asyncio.Semaphore(self.at_once)

        async def part(numbered: list[tuple[int, T]]) -> Iterable[tuple[int, R]]:
            async with free:
                outcomes = await write([item for _, item in numbered]) or ()
            return zip((number for number, _ in numbered), outcomes, strict=False)

        parts = await gather_all(*map(part, of_user.values()))
        return [outcome for _, outcome in sorted((pair for part in parts for pair in part), key=lambda pair: pair[0])]

    async def _read(self, connection: Any, template: str, *args: Any) -> Sequence[Any]:
        """Read from the table of memories alone, the model of the store given."""
        now, model = time.monotonic(), self._own_model()
        if is_news := now - self._model_seen_at > _MODEL_HOLDS:
            stored = await connection.fetchval(self._queries.sql(_MODEL))
            model, is_news = stored, stored == model
        statement = self._queries.sql(template.replace(queries.MODEL, f"${len(args) + 1}::text"))
        rows: Sequence[Any] = await connection.fetch(statement, *args, model)
        if rows and is_news:  # an empty store takes the model of whoever comes first
            self._model_seen_at = now
        return rows

    async def _patiently(self, connection: Any, call: str, *args: Any) -> Sequence[Any]:
        waits = iter(() if connection.is_in_transaction() else _WAITS)
        while True:
            try:
                rows: Sequence[Any] = await connection.fetch(call, *args)
            except asyncpg.SerializationError:
                if (wait := next(waits, None)) is None:
                    raise
                await asyncio.sleep(wait)
            else:
                return rows

    async def _learn(self, connection: Any, template: str) -> str:
        """Return the call that runs the statement; the server says which types it takes and returns."""
        prepared = await connection.prepare(self._queries.sql(template))
        kinds = prepared.get_parameters()
        places, values = _places(kinds)
        found = [(attribute.name, _name(attribute.type)) for attribute in prepared.get_attributes()]
        statement = Queries.sql(self._queries, template)
        if not found:  # what returns nothing could not be told from what did nothing
            statement, found = statement + " RETURNING true", [("done", "boolean")]
        names = ", ".join(f"c{n} AS {schema.quoted_name(name)}" for n, (name, _) in enumerate(found))
        columns = ", ".join(f"c{n} {kind}" for n, (_, kind) in enumerate(found))
        statement = _PARAMETER.sub(lambda found: places[int(found[1]) - 1], statement)
        # A table without an alias gives its columns its name, which a shard does not bear.
        table = re.escape(self._queries.schema) + _TABLES
        statement = re.sub(table + "(?! [a-z])", rf"{self._queries.schema}.\1 AS \1", statement)
        statement = re.sub(table, rf"{self._queries.schema}.\1_<\1>", statement)
        call = (
            f"SELECT {names} FROM {self._queries.schema}.run(${len(kinds) + 1}, {bool(_WRITES.search(template))}, "
            f"$statement${statement}$statement$, {values}) "
            f"AS found ({columns})"
        )
        if len(self._calls) >= 1000:
            self._calls.clear()
        self._calls[template] = call
        return call


def _places(kinds: Sequence[Any]) -> tuple[Sequence[str], str]:
    """Return where the statement finds each parameter of these types, and what `run` is given."""
    texts: list[str] = []
    given = {"$2": "NULL", "$3": "NULL", "$4": "NULL"}
    free = {"halfvec": ["$2"], "sparsevec": ["$4", "$3"]}
    places: list[str] = []
    alone: dict[str, list[str]] = {}
    for number, kind in enumerate(kinds, 1):
        if kind.name.endswith("[]") and free.get(kind.name.removesuffix("[]")):
            place = free[kind.name.removesuffix("[]")].pop()
            given[place] = f"${number}::{_name(kind)}"
            places.append(place)
        elif kind.name in free:
            together = alone.setdefault(kind.name, [])
            together.append(f"${number}::{_name(kind)}")
            places.append(f"({free[kind.name][-1]})[{len(together)}]")
        else:
            texts.append(f"${number}::{_name(kind)}::text")
            places.append(f"($1)[{len(texts)}]::{_name(kind)}")
    for name, together in alone.items():
        given[free[name][-1]] = f"ARRAY[{', '.join(together)}]"
    return places, ", ".join([f"ARRAY[{', '.join(texts)}]::text[]", *given.values()])


def _name(kind: Any) -> str:
    """Return how SQL names a type."""
    name, is_array = kind.name.removesuffix("[]"), kind.name.endswith("[]")
    return f"{schema.quoted_name(kind.schema)}.{schema.quoted_name(name)}{'[]' if is_array else ''}"
