"""What stands round a store or next to it conforms: an audit journal, a mirror, a fallback in an outage, a backup."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import lasting
import pytest
from openproto_adapters.sqlite import Sqlite
from openproto_conformance import bench
from openproto_conformance.histories import values
from openproto_conformance.histories.author import Author
from openproto_conformance.histories.player import Player
from openproto_conformance.histories.themes import THEMES
from openproto_conformance.runner import suite_of
from plain_sqlite import PlainSqlite
from saboteurs import Fault, breaking, outcome_of, throw
from store_suites import SqliteSuite
from waiting import until

from openproto import AsyncMemory, Provider, ProviderUnavailableError
from openproto.layers.audit import Audited
from openproto.layers.failover import FailingOver
from openproto.layers.mirror import Mirrored
from openproto.layers.mirroring import journal
from openproto.layers.mirroring.status import mirror_status

NAMES = ("histories_of_everything", "histories_of_deletes", "histories_of_keys")
ASKED_OF_THE_COPY = ("add", "scopes", "users", "audit", "read back")
"""The last steps of a history; its adds are under keys that were used before."""


def plain(path: Path) -> Sqlite:
    return Sqlite(path, embedder="none", synchronous="normal")


def outcome_on(provider: Provider, name: str) -> str:
    """Return what comes of histories on fresh providers like this one: `passed`, or how they differ."""
    return outcome_of(suite_of(provider.fresh, deviations={}), name)


async def contents(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all records of each user; what a version is, is each store's own affair."""
    async with AsyncMemory(plain(path)) as memory:
        users = (await memory.users(limit=500)).items
        return {user: [{**record.to_wire(), "version": None} async for record in memory.iter(user)] for user in users}


@pytest.mark.parametrize("name", NAMES)
def test_histories_are_the_models_on_both_sides(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "UNSURE_SECONDS", 0.05)
    monkeypatch.setattr(journal, "APPEND_SECONDS", 30.0)  # ten clients write to it at once, however busy the machine is
    monkeypatch.setattr(bench, "CLOSE_WITHIN", 30.0)
    here, there, notes = (tmp_path / f"{part}.db" for part in ("primary", "mirror", "journal"))
    mirrored = Mirrored(plain(here), plain(there), notes)
    assert outcome_on(mirrored, name) == "passed"

    async def catch_up() -> None:
        async with AsyncMemory(mirrored.fresh()) as memory:
            await memory.health()
            await until(lambda: mirror_status(notes).backlog == 0, 60)
        stored = await contents(here)
        assert any(stored.values())
        assert await contents(there) == stored

    asyncio.run(catch_up())


DOWN = Fault(lambda request: throw(ProviderUnavailableError("down")))
READS = ("get", "get_by_key", "list", "search", "context", "scopes", "users", "audit")


@pytest.mark.parametrize("name", NAMES)
def test_histories_are_the_models_on_a_fallback(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "memory.db"
    primary = breaking(**dict.fromkeys(READS, DOWN))(path, embedder="none", synchronous="normal")
    monkeypatch.setattr(FailingOver, "_marked", lambda _, answer: answer)  # that they are marked is tried elsewhere
    assert outcome_on(FailingOver(primary, plain(path)), name) == "passed"


@pytest.mark.parametrize("theme", [theme for theme in THEMES if theme.name in NAMES], ids=lambda theme: theme.name)
async def test_what_a_backup_brings_back_is_what_a_history_left(theme: Any, tmp_path: Path) -> None:
    suite = suite_of(plain(tmp_path / "memory.db").fresh, deviations={})
    suffixes = values.LOOK_ALIKES if theme.unicode_users else [f"user{n}" for n in range(theme.users)]
    async with bench.Bench(suite, theme.name, "async", quick=True) as desk:
        history = Author(Random(12), desk.capabilities, theme).write(40)
        player = Player(desk, [await desk.open() for _ in range(theme.clients)], suffixes, history)
        assert await player.play() is None
        copy = plain(tmp_path / "copy.db")
        async with AsyncMemory(copy), desk.provider_of(desk.client).snapshot(vectors=True) as held:
            async for user in held.users():
                parts = [part async for part in held.parts(user)]
                await copy.load(parts, model=held.model, app=None, include_deleted=False)
        player.model.load()
        player.clients = [await desk.open(copy.fresh()) for _ in player.clients]
        player.history = tuple(step for step in history[-8:] if step.verb in ASKED_OF_THE_COPY)
        assert await player.play() is None


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
