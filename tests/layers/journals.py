"""What the tests of the audit journal share: a provider without an audit log, and a PostgreSQL for journals."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private.server import PrivatePostgres
from openproto_adapters.sqlite import Sqlite

from openproto import Capabilities, Provider


class Plain(Sqlite):
    """A backend with every verb but `audit`."""

    name = "plain"
    audit = Provider.audit

    def __init__(self, path: Path) -> None:
        super().__init__(path, embedder="none", audit_reads=False, synchronous="normal")

    async def capabilities(self) -> Capabilities:
        claims = await super().capabilities()
        support = claims.x_openproto.support | {"audit": "none", "supports_audit": "none"}
        changes: dict[str, Any] = {
            "verbs": [verb for verb in claims.verbs if verb != "audit"],
            "features": claims.features.model_copy(update={"supports_audit": False}),
            "x_openproto": claims.x_openproto.model_copy(update={"support": support}),
        }
        return claims.model_copy(update=changes)


@cache
def postgres_url() -> str:
    """Start a server, to be stopped when the tests end, and return its URL."""
    home = Path(tempfile.mkdtemp(prefix="op-journal-", dir="/tmp")).resolve()
    home.chmod(0o755)
    private = PrivatePostgres(home, settings={"fsync": "off", "max_connections": "60"})
    private.start()

    def stop() -> None:
        private.stop()
        shutil.rmtree(home, ignore_errors=True)

    atexit.register(stop)
    return f"postgresql://postgres@/postgres?host={quote(str(keeper.Place(home).sockets))}&port={keeper.PORT}"
