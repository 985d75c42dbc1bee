"""The suite on the postgres provider, over a private server that lasts as long as the test run."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_conformance import ProviderSuite

from openproto import Provider


@cache
def server() -> str:
    """Start the server, to be stopped when the tests end, and return its URL."""
    home = Path(tempfile.mkdtemp(prefix="op-conformance-", dir="/tmp")).resolve()
    home.chmod(0o755)
    private = PrivatePostgres(home, settings={"fsync": "off", "max_connections": "60"})
    private.start()

    def stop() -> None:
        private.stop()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(stop)
    return f"postgresql://postgres@/postgres?host={quote(str(keeper.Place(home).sockets))}&port={keeper.PORT}"


@pytest.mark.promise(77)
@pytest.mark.promise(85)
class TestPostgres(ProviderSuite):
    secrets = ("correct-horse",)

    def provider(self) -> Provider:
        return Postgres(server(), embedder="none")

    def pooled(self, size: int) -> Provider:
        return Postgres(server(), embedder="none", pool_max=size)

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        """Lock the table against writers from a connection of our own, which lives on a loop of its own."""
        with ThreadPoolExecutor(1) as thread:
            runner = asyncio.Runner()
            other = thread.submit(runner.run, _lock_table()).result()
            try:
                yield
            finally:
                thread.submit(runner.run, other.close()).result()
                thread.submit(runner.close).result()

    def unreachable(self) -> Provider:
        return Postgres("postgresql://app:correct-horse@127.0.0.1:1/memory", embedder="none", connect_timeout=2.0)


async def _lock_table() -> Any:
    connection = await asyncpg.connect(server())
    await connection.execute("BEGIN; LOCK TABLE openproto.memories IN SHARE MODE")
    return connection
