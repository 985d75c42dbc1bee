"""Searches and lists on a streaming replica: answers as old as it is, and an error where nobody knows how old."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from openproto.errors import OpenProtoError, ProviderError, ProviderUnavailableError

if TYPE_CHECKING:
    from openproto_adapters.postgres.pool import Pool

CHECK_EVERY = 1.0
"""Seconds between two looks at the replica: one round trip more for a read, at most that often."""

_STATE = """
SELECT pg_is_in_recovery(), EXISTS (SELECT FROM pg_stat_wal_receiver), CASE
    WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0) END::double precision
"""


class State(NamedTuple):
    """What a server says of itself as a replica."""

    is_standby: bool
    is_fed: bool
    behind: float
    """Seconds between now and the last change that it has applied, where it knows of later ones."""

    def fault(self, read_lag: float) -> OpenProtoError | None:
        """Return why nothing should be read there, or None."""
        if not self.is_standby:
            return ProviderError(
                "read_url= leads to a server that takes writes: a replica that was promoted, or none. What it holds "
                "need not be what url= holds: point url= at it, or read_url= at a replica of url=",
                provider="postgres",
            )
        if not self.is_fed:
            return ProviderUnavailableError(
                "the replica at read_url= receives nothing from its primary, so its answers may be of any age: look at "
                "its log and primary_conninfo, or leave read_url= out",
                provider="postgres",
            )
        if self.behind > read_lag:
            return ProviderUnavailableError(
                f"the replica at read_url= is {self.behind:.0f} s behind its primary, and read_lag= allows "
                f"{read_lag:g}: wait, raise read_lag=, or leave read_url= out",
                provider="postgres",
            )
        return None


class Replica:
    """The connections to a replica, which is looked at before it is read."""

    def __init__(self, pool: Pool, read_lag: float) -> None:
        self._pool = pool
        self._read_lag = read_lag
        self._looked = float("-inf")

    async def fetch(self, statement: str, *args: Any) -> Sequence[Any]:
        """Run a statement that only reads; raise where the replica is none, is cut off, or is too far behind."""
        if time.monotonic() - self._looked > CHECK_EVERY:
            if fault := (await self._state()).fault(self._read_lag):
                raise fault
            self._looked = time.monotonic()
        return await self._pool.fetch(statement, *args)

    async def describe(self) -> str:
        """Return in words how the replica is."""
        try:
            state = await self._state()
        except OpenProtoError as error:
            return error.message
        return fault.message if (fault := state.fault(self._read_lag)) else f"serves, {state.behind:.1f} s behind"

    async def close(self) -> None:
        """Close every connection at once."""
        await self._pool.close()

    async def _state(self) -> State:
        (row,) = await self._pool.fetch(_STATE)
        return State(*row)
