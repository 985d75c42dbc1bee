"""mem0 over its pgvector store on a real PostgreSQL: the areas of the suite in which stores differ."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from urllib.parse import quote

from openproto_adapters.mem0 import Mem0
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_conformance import ProviderSuite

from openproto import Provider


@cache
def config() -> dict[str, object]:
    """Start a server, to be stopped when the tests end, and return mem0's configuration for it."""
    home = Path(tempfile.mkdtemp(prefix="op-mem0-", dir="/tmp")).resolve()
    home.chmod(0o755)
    private = PrivatePostgres(home, settings={"fsync": "off", "max_connections": "60"})
    private.start()

    def stop() -> None:
        private.stop()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(stop)
    place = quote(str(keeper.Place(home).sockets))
    url = f"postgresql://postgres@/postgres?host={place}&port={keeper.PORT}"
    return {"vector_store": {"provider": "pgvector", "config": {"connection_string": url}}}


class TestMem0OnPgvector(ProviderSuite):
    quick = True

    def provider(self) -> Provider:
        return Mem0(config=config())
