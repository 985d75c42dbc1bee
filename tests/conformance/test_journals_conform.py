"""The suite on a backend with layers round it: an audit journal in SQLite and in PostgreSQL, a mirror, a fallback."""

from __future__ import annotations

from pathlib import Path

import lasting
import pytest
from plain_sqlite import PlainSqlite
from store_suites import SqliteSuite

from openproto import Provider
from openproto.layers.audit import Audited
from openproto.layers.failover import FailingOver
from openproto.layers.mirror import Mirrored


@pytest.mark.everyday("audit", "cancellation", "lifecycle", faces=("async",), sync=("lifecycle",))
class TestSqliteJournal(SqliteSuite):
    @property
    def journal(self) -> str:
        return f"sqlite:///{self.path.with_name('audit.db')}"

    def provider(self) -> Provider:
        return Audited(PlainSqlite(self.path), self.journal)

    def unreachable(self) -> Provider:
        return Audited(PlainSqlite(self.path), "sqlite:////dev/null/audit.db")


@pytest.mark.everyday("audit", "cancellation", faces=("async",))
class TestPostgresJournal(TestSqliteJournal):
    secrets = ("correct-horse",)

    @property
    def journal(self) -> str:
        return f"{lasting.postgres_url('journals')}&schema=journal"

    def unreachable(self) -> Provider:
        return Audited(PlainSqlite(self.path), "postgresql://app:correct-horse@127.0.0.1:1/audit")


@pytest.mark.everyday("basics", "cancellation", "lifecycle", faces=("async",))
class TestMirrored(SqliteSuite):
    """With a mirror and a fallback round it, a provider answers as it does alone."""

    def provider(self) -> Provider:
        other = self.path.with_name("other.db")
        mirror = Mirrored(PlainSqlite(self.path), PlainSqlite(other), self.path.with_name("journal.db"), sample=1.0)
        return FailingOver(mirror, PlainSqlite(other))

    def unreachable(self) -> Provider:
        wrong = Path("/dev/null/memory.db")
        return FailingOver(Mirrored(PlainSqlite(wrong), PlainSqlite(wrong), wrong), PlainSqlite(wrong))
