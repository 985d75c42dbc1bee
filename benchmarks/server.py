"""The PostgreSQL that the benchmarks use, and plain asyncpg next to the provider: same session, same types."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg
from openproto_adapters.postgres.pool import SESSION_SETTINGS
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres

_LARGEST_BUFFERS_MB = 2048
_LONGEST_STOP = 45.0


@contextmanager
def private_server(folder: Path) -> Iterator[str]:
    """Run a server in a new folder beneath `folder` and yield its superuser's DSN; both are gone afterwards.

    Policies let nobody else COPY, or write without saying for whom.
    """
    place = Path(tempfile.mkdtemp(prefix="postgres-", dir=folder))
    place.chmod(0o755)  # as root the server runs as another user, who must come through
    server = PrivatePostgres(
        place,
        settings={
            "shared_buffers": f"{_buffers_mb()}MB",
            "max_wal_size": "8GB",
            "checkpoint_timeout": "30min",
            "maintenance_work_mem": "256MB",
        },
    )
    try:
        yield server.start().replace(f"//{keeper.ROLE}@", "//postgres@")
    finally:
        server.stop()
        _wait_until_ended(place)
        shutil.rmtree(place, ignore_errors=True)


@asynccontextmanager
async def new_schema(url: str, name: str) -> AsyncIterator[str]:
    """Yield the name of a schema that does not exist yet, and drop it at the end."""
    schema = f"bench_{name}_{os.getpid()}"
    try:
        yield schema
    finally:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        finally:
            await connection.close()


@asynccontextmanager
async def raw_connection(url: str) -> AsyncIterator[Any]:
    """Lend a connection with the provider's session settings and codecs."""
    connection = await asyncpg.connect(url, server_settings=SESSION_SETTINGS)
    try:
        await prepare(connection)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def raw_pool(url: str, size: int) -> AsyncIterator[Any]:
    """Lend a pool of plain connections that, as the provider's do, skip the round trip of a reset."""

    async def keep(connection: Any) -> None:
        """Leave the session as it is."""

    async with asyncpg.create_pool(
        url, min_size=size, max_size=size, server_settings=SESSION_SETTINGS, init=prepare, reset=keep
    ) as pool:
        yield pool


async def prepare(connection: Any) -> None:
    """Let the connection take and give vectors as the bytes they are."""
    schema = await connection.fetchval(
        "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
    )
    for name in ("halfvec", "sparsevec"):
        await connection.set_type_codec(name, schema=schema, format="binary", encoder=bytes, decoder=bytes)


def _wait_until_ended(place: Path) -> None:
    """Wait for the server's keeper: until it has ended it writes to its folder."""
    deadline = time.monotonic() + _LONGEST_STOP
    while (taken := keeper.lock(place / "keeper.lock", fcntl.LOCK_EX)) is None and time.monotonic() < deadline:
        time.sleep(0.1)
    if taken is not None:
        os.close(taken)


def _buffers_mb() -> int:
    """Enough for a million memories, but no more than a quarter of the machine's memory."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_LARGEST_BUFFERS_MB, memory // 4 // 2**20)
