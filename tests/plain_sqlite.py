"""A provider without an audit log, for what is to be a journal next to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from openproto_adapters.sqlite import Sqlite

from openproto import Capabilities, Provider


class PlainSqlite(Sqlite):
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
