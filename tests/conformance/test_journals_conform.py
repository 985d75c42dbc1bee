"""The suite on a backend that has no audit log, with a journal in SQLite and in PostgreSQL next to it."""

from __future__ import annotations

import lasting
import pytest
from plain_sqlite import PlainSqlite
from store_suites import SqliteSuite

from openproto import Provider
from openproto.layers.audit import Audited


@pytest.mark.everyday("audit", "cancellation", "lifecycle")
class TestSqliteJournal(SqliteSuite):
    @property
    def journal(self) -> str:
        return f"sqlite:///{self.path.with_name('audit.db')}"

    def provider(self) -> Provider:
        return Audited(PlainSqlite(self.path), self.journal)

    def unreachable(self) -> Provider:
        return Audited(PlainSqlite(self.path), "sqlite:////dev/null/audit.db")


class TestPostgresJournal(TestSqliteJournal):
    secrets = ("correct-horse",)

    @property
    def journal(self) -> str:
        return f"{lasting.postgres_url('journals')}&schema=journal"

    def unreachable(self) -> Provider:
        return Audited(PlainSqlite(self.path), "postgresql://app:correct-horse@127.0.0.1:1/audit")
