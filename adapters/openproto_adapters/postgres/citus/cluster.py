"""Noticing a Citus cluster, how far the tables are distributed on it, and what keeps them from being."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from openproto.errors import ProviderError

if TYPE_CHECKING:
    from openproto_adapters.postgres.pool import Pool

PGVECTOR = "0.7"
"""The first pgvector that has the types used here."""

OLDEST = 12
"""The first Citus that has all that is used here; tried is 15."""

NOT_THERE = (
    "off: Citus takes no policies that hold subqueries, so on a cluster the conditions of the statements alone keep "
    "users apart. To have it, keep these users on one server"
)

_ALL = {"audit", "keys", "memories", "store"}

_STATE = """
SELECT array(SELECT relname::text FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid
        WHERE relnamespace = to_regnamespace($1)),
    EXISTS (SELECT FROM pg_proc WHERE proname = 'run' AND pronamespace = to_regnamespace($1))
"""

# Each server, its pgvector (NULL where it is down), and how many shards it has.
_SERVERS = """
SELECT nodename || ':' || nodeport, CASE WHEN success THEN coalesce(nullif(result, ''), '0') END,
    (SELECT count(*) FROM pg_dist_placement JOIN pg_dist_shard USING (shardid)
        WHERE logicalrelid = $1::text::regclass AND pg_dist_placement.groupid = pg_dist_node.groupid)
FROM run_command_on_all_nodes($$SELECT extversion FROM pg_extension WHERE extname = 'vector'$$)
JOIN pg_dist_node USING (nodeid) ORDER BY nodeid
"""


class Cluster(NamedTuple):
    """A database that has Citus."""

    version: str
    schema: str
    distributed: frozenset[str]
    """Which tables Citus has spread or replicated."""
    has_functions: bool

    @property
    def is_distributed(self) -> bool:
        """Whether the tables are on the workers; where none of them is, this is a server like any other."""
        return bool(self.distributed)

    def settings(self, connect_timeout: float) -> dict[str, str]:
        """Return how a session on the coordinator differs from one on a server like any other."""
        if not self.is_distributed:
            return {}
        return {
            # Hardly a statement can be planned for all users; the few that can, such as a get, keep their plan.
            "plan_cache_mode": "auto",
            # Moments go to the workers as text.
            "datestyle": "ISO",
            # How long to wait for a lock counts on the workers too.
            "citus.propagate_set_commands": "local",
            # With it what asyncpg asks about types takes seconds for each connection.
            "citus.override_table_visibility": "off",
            # A worker that does not answer is not waited for longer than the coordinator would be.
            "citus.node_connection_timeout": f"{round(connect_timeout * 1000)}ms",
        }

    def check(self) -> None:
        """Raise ProviderError where the tables can be neither used nor distributed as they are."""
        if int(self.version.partition(".")[0]) < OLDEST:
            raise ProviderError(
                f"this database has Citus {self.version}, and openproto distributes its tables with Citus {OLDEST} or "
                "newer: install it on every server of the cluster, then run ALTER EXTENSION citus UPDATE on each",
                provider="postgres",
            )
        if self.distributed and (missing := _ALL - self.distributed or (not self.has_functions and {"run()"})):
            raise ProviderError(
                f"openproto's tables in schema {self.schema!r} are half distributed: {', '.join(sorted(missing))} "
                "is missing on the workers. Let the tables' owner run what `openproto schema --distribute` prints: it "
                "does the rest",
                provider="postgres",
            )

    def __str__(self) -> str:
        if self.is_distributed:
            return f"Citus {self.version}, the tables distributed by user"
        return (
            f"Citus {self.version}, the tables on this server alone: `openproto schema --distribute` prints the SQL "
            "that distributes them"
        )

    async def describe(self, pool: Pool) -> dict[str, str]:
        """Return how far the tables are distributed, and of distributed ones how each server is."""
        if not self.is_distributed:
            return {"Citus": str(self)}
        rows = await pool.fetch(_SERVERS, f"{self.schema}.memories")
        servers = ", ".join(f"{where} {_condition(pgvector)} ({shards} shards)" for where, pgvector, shards in rows)
        return {"Citus": str(self), "servers": servers, "row security": NOT_THERE}


def _condition(pgvector: str | None) -> str:
    if pgvector is None:
        return "is down: its users' calls fail until it is back"
    if [*map(int, pgvector.split(".")[:2])] < [*map(int, PGVECTOR.split("."))]:
        return f"has pgvector {pgvector}, too old: install {PGVECTOR} or newer, then ALTER EXTENSION vector UPDATE"
    return f"has pgvector {pgvector}"


async def notice(connection: Any, schema: str, version: str) -> Cluster:
    """Return how far the tables of the schema are distributed, of a database that has that version of Citus."""
    (row,) = await connection.fetch(_STATE, schema)
    return Cluster(version, schema, frozenset(row[0]) & _ALL, row[1])


@cache
def distribution(schema: str) -> str:
    """Return the SQL that distributes the tables; what is distributed is left alone."""
    text = files("openproto_adapters.postgres.citus").joinpath("distribute.sql").read_text(encoding="utf-8")
    return text.replace("{schema}", schema)
