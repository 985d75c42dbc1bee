"""The audit journal next to a backend without one: what it records, and what happens when one of the two fails."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import lasting
import pytest
from plain_sqlite import PlainSqlite

from openproto import (
    AsyncMemory,
    Provider,
    ProviderUnavailableError,
    ScopeDeniedError,
    UnauthorizedError,
    UnsupportedCapabilityError,
    registry,
)
from openproto.client import settings
from openproto.layers.audit import Audited
from openproto.layers.journals import sqlite as sqlite_journal
from openproto.layers.layer import Layer
from openproto.requests import RecordRef

both = pytest.mark.parametrize("kind", ["sqlite", "postgres"])
CONNECTIONS = "FROM pg_stat_activity WHERE application_name = 'openproto-audit' AND datname = current_database()"


def url_of(kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/audit.db"
    return f"{lasting.postgres_url('audit_journal')}&schema=t_{os.urandom(6).hex()}"


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return url_of("sqlite", tmp_path)


@contextlib.contextmanager
def locked(journal: str) -> Iterator[None]:
    """Keep everybody else from writing to the journal's file."""
    other = sqlite3.connect(journal.removeprefix("sqlite:///"), isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        yield
    finally:
        other.close()


async def actions(memory: AsyncMemory, user: str = "ann") -> list[tuple[str, str | None]]:
    return [(entry.action, entry.memory_id) for entry in reversed(await memory.audit(user)) if entry.action != "audit"]


@both
async def test_reads_and_writes_are_recorded(kind: str, tmp_path: Path) -> None:
    url = url_of(kind, tmp_path)
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url, app="editor") as memory:
        record = await memory.add("tea", user_id="ann", scope="kitchen", idempotency_key="k")
        await memory.add("tea", user_id="ann", scope="kitchen", idempotency_key="k")  # which is not recorded again
        await memory.update(record.id, content="coffee")
        await memory.get(record.id)
        await memory.context("coffee", "ann", scope="kitchen")
        await memory.delete(record.id)
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url) as memory:
        entries = await memory.audit("ann")
        found = [(entry.action, entry.memory_id, entry.scope, entry.app) for entry in reversed(entries)]
        assert found == [
            ("add", record.id, "kitchen", "editor"),
            ("update", record.id, "kitchen", "editor"),
            ("get", record.id, None, "editor"),
            ("context", None, "kitchen", "editor"),
            ("delete", record.id, None, "editor"),
        ]
        assert len({entry.request_id for entry in entries}) == 5
    if kind == "sqlite":
        assert stat.S_IMODE((tmp_path / "audit.db").stat().st_mode) == 0o600
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url, audit_reads=False) as memory:
        await memory.list("bob")
        assert await memory.audit("bob") == []
        assert await memory.audit("bob") == []


@both
async def test_clients_that_open_a_new_journal_at_once_share_it(kind: str, tmp_path: Path) -> None:
    url = url_of(kind, tmp_path)
    clients = [AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url, retries=0) for _ in range(6)]
    records = await asyncio.gather(*(client.add(f"note {n}", user_id="ann") for n, client in enumerate(clients)))
    recorded = await actions(clients[0])
    assert sorted(recorded) == sorted(("add", record.id) for record in records)
    for client in clients:
        await client.aclose()


async def test_the_provider_looks_like_the_one_that_it_wraps(tmp_path: Path, journal: str) -> None:
    inner = PlainSqlite(tmp_path / "memory.db")
    audited = Audited(inner, journal)
    assert (audited.name, audited.cancellation) == (inner.name, inner.cancellation)
    assert audited.verbs == inner.verbs | {"audit"}
    await audited.open()
    try:
        claims, own = await audited.capabilities(), await inner.capabilities()
        assert claims.verbs == [*own.verbs, "audit"]
        assert claims.features == own.features.model_copy(update={"supports_audit": True})
        assert claims.x_openproto.support["audit"] == "emulated"
        assert (await audited.describe()).items() > (await inner.describe()).items()
        assert (await audited.describe())["audit journal"] == f"{tmp_path}/audit.db"
    finally:
        await audited.close()


async def test_a_fresh_layer_shares_nothing_that_is_open(tmp_path: Path, journal: str) -> None:
    audited = Audited(PlainSqlite(tmp_path / "memory.db"), journal, reads=False)
    fresh = audited.fresh()
    async with AsyncMemory(audited) as memory:
        record = await memory.add("tea", user_id="ann")
        with pytest.raises(ProviderUnavailableError):
            await fresh.get(RecordRef(id=record.id))


def test_a_layer_passes_on_everything_that_a_provider_has() -> None:
    """What is not is built on the provider's name and its operations, which the layer shares."""
    kept = {"name", "cancellation", "requires", "closed_meanwhile", "not_open", "unsupported"}
    kept |= {"add_as_batch", "explain", "lacking", "on_duplicate"}
    assert {name for name in vars(Provider) if not name.startswith("_")} - set(vars(Layer)) == kept


async def test_what_the_wrapped_provider_lacks_is_still_refused(journal: str) -> None:
    class Little(Provider):
        name = "little"

    async with AsyncMemory(Little(), audit=journal) as memory:
        with pytest.raises(UnsupportedCapabilityError, match="little"):
            await memory.add("tea", user_id="ann")
        with pytest.raises(UnsupportedCapabilityError, match="little"):
            await Audited(Little(), journal).reindex(print)


def test_a_provider_that_keeps_an_audit_log_is_refused(tmp_path: Path, journal: str) -> None:
    with pytest.raises(ValueError, match="'sqlite' keeps an audit log already"):
        AsyncMemory("sqlite", path=tmp_path / "memory.db", audit=journal)


@pytest.mark.parametrize(
    "url",
    [
        *("", "audit.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/audit.db"),
        *("mysql://app:correct-horse@host/db", "postgresql://app:correct-horse@host/db?schema=No;"),
        "postgresql://app:correct-horse@[host/db",
    ],
)
def test_a_url_that_names_no_journal_is_refused_without_being_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="audit= wants") as caught:
        AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url)
    assert "correct-horse" not in str(caught.value)
    assert caught.value.__context__ is None or "correct-horse" not in str(caught.value.__context__)


async def test_a_journal_that_cannot_be_had_fails_the_opening_and_leaves_nothing_open(tmp_path: Path) -> None:
    for url in ("sqlite:////dev/null/audit.db", "postgresql://app:correct-horse@127.0.0.1:1/audit"):
        inner = PlainSqlite(tmp_path / "memory.db")
        with pytest.raises(Exception, match="audit journal") as caught:
            async with AsyncMemory(inner, audit=url):
                pass
        assert "correct-horse" not in f"{caught.value} {caught.value.__cause__}"
        assert inner._database is None


async def test_a_file_that_is_not_a_journal_is_refused(tmp_path: Path, journal: str) -> None:
    (tmp_path / "audit.db").write_text("not a database, but longer than the header of one " * 10)
    with pytest.raises(Exception, match="does not hold the audit journal"):
        await AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=journal).add("tea", user_id="ann")


async def test_delete_all_records_what_it_deleted_before_it_was_cancelled(tmp_path: Path, journal: str) -> None:
    class Slow(PlainSqlite):
        begun = deleted = 0

        async def delete(self, ref: RecordRef) -> None:
            self.begun += 1
            if self.begun > 3:
                await asyncio.sleep(60)
            await super().delete(ref)
            self.deleted += 1

    slow = Slow(tmp_path / "memory.db")
    async with AsyncMemory(slow, audit=journal) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(8)])
        before = {record.id for record in (await memory.list("ann")).items}
        call = asyncio.create_task(memory.delete_all("ann"))
        while slow.deleted < 3:  # the provider is in the middle of a loop
            await asyncio.sleep(0.01)
        call.cancel()
        await asyncio.wait([call])
        gone = before - {record.id for record in (await memory.list("ann")).items}
        assert len(gone) == 3
        assert {id for action, id in await actions(memory) if action == "delete"} == gone


async def test_delete_all_passes_over_what_somebody_else_deletes_and_ends(tmp_path: Path, journal: str) -> None:
    class Racing(PlainSqlite):
        async def delete(self, ref: RecordRef) -> None:
            await super().delete(ref)
            await super().delete(ref)

    async with AsyncMemory(Racing(tmp_path / "memory.db"), audit=journal) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(700)])
        assert await memory.delete_all("ann") == 0
        assert (await memory.list("ann")).items == []
        assert "delete" not in {action for action, _ in await actions(memory)}


async def test_while_the_journal_takes_nothing_writes_are_refused_before_the_change(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_journal, "_LOCK_TIMEOUT", 0.1)
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=journal, retries=0) as writer:
        with locked(journal):
            first = await writer.add("tea", user_id="ann")
            (logged,) = [record for record in caplog.records if "waits for the journal" in record.getMessage()]
            assert logged.levelno == logging.ERROR
            assert "tea" not in caplog.text
            changes: list[Any] = [writer.add("milk", user_id="ann"), writer.update(first.id, content="coffee")]
            for refused in (*changes, writer.delete(first.id), writer.delete_all("ann")):
                with pytest.raises(ProviderUnavailableError, match="audit journal cannot be used now"):
                    await refused
            [outcome] = await writer.add_many([{"content": "milk", "user_id": "ann"}])
            assert isinstance(outcome, ProviderUnavailableError)
            assert (await writer.health()).status == "unavailable"
            assert [record.content for record in (await writer.list("ann")).items] == ["tea"]
        second = await writer.add("honey", user_id="ann")
        writes = [entry for entry in await actions(writer) if entry[0] in ("add", "update", "delete")]
        assert writes == [("add", first.id), ("add", second.id)]
        assert (await writer.health()).status == "ok"


async def test_closing_does_not_wait_for_a_stuck_journal_and_logs_what_is_lost(
    tmp_path: Path, journal: str, caplog: pytest.LogCaptureFixture
) -> None:
    memory = AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=journal, close_timeout=1.0)
    await memory.list("ann")
    with locked(journal):
        call = asyncio.create_task(memory.add("tea", user_id="ann"))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(4):
            await memory.aclose()
        (logged,) = [record for record in caplog.records if "1 write entries were lost" in record.getMessage()]
        assert logged.levelno == logging.ERROR
        async with asyncio.timeout(2):
            assert (await call).content == "tea", "the write did happen"
            while len(asyncio.all_tasks()) > 1:  # until the tasks of the journal have ended
                await asyncio.sleep(0.01)


async def test_the_environment_may_name_the_journal(
    tmp_path: Path, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = registry.provider_class

    def find(name: str) -> Any:
        return PlainSqlite if name == "plain" else lookup(name)

    monkeypatch.setattr(registry, "provider_class", find)
    monkeypatch.setattr(settings, "provider_class", find)
    monkeypatch.setenv("OPENPROTO_PROVIDER", "plain")
    monkeypatch.setenv("OPENPROTO_PATH", str(tmp_path / "memory.db"))
    monkeypatch.setenv("OPENPROTO_AUDIT", journal)
    async with AsyncMemory.from_env() as memory:
        record = await memory.add("tea", user_id="ann")
        assert await actions(memory) == [("add", record.id)]
    monkeypatch.setenv("OPENPROTO_PROVIDER", "sqlite")
    async with AsyncMemory.from_env() as memory:
        assert not isinstance(memory._session.provider, Audited), "sqlite keeps its own log"


async def test_a_role_that_may_only_write_to_the_table_is_enough(tmp_path: Path) -> None:
    url, schema, role = lasting.postgres_url("audit_journal"), f"t_{os.urandom(6).hex()}", f"r_{os.urandom(6).hex()}"
    restricted = url.replace("ordinary@", f"{role}@", 1) + f"&schema={schema}"
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(f"CREATE ROLE {role} LOGIN")
        with pytest.raises(ScopeDeniedError, match="neither use"):
            await AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=restricted).add("tea", user_id="ann")
        async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=f"{url}&schema={schema}"):
            pass
        await owner.execute(
            f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT, INSERT ON {schema}.audit TO {role}"
        )
        async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=restricted) as memory:
            record = await memory.add("tea", user_id="ann")
            assert await actions(memory) == [("add", record.id)]
        stranger = url.replace("ordinary@", "nobody_at_all@", 1)
        with pytest.raises(UnauthorizedError):
            await AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=stranger).add("tea", user_id="ann")
    finally:
        await owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; DROP ROLE IF EXISTS {role}")
        await owner.close()


async def test_a_postgres_journal_survives_lost_connections(tmp_path: Path) -> None:
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url_of("postgres", tmp_path)) as memory:
        first = await memory.add("tea", user_id="ann")
        owner = await asyncpg.connect(lasting.postgres_url("audit_journal"))
        await owner.execute(f"SELECT pg_terminate_backend(pid) {CONNECTIONS}")
        await owner.close()
        second = await memory.add("milk", user_id="ann")
        assert await actions(memory) == [("add", first.id), ("add", second.id)]


async def test_an_audit_that_the_server_does_not_answer_is_cancelled_promptly(tmp_path: Path) -> None:
    async with AsyncMemory(PlainSqlite(tmp_path / "memory.db"), audit=url_of("postgres", tmp_path)) as memory:
        record = await memory.add("tea", user_id="ann")
        owner = await asyncpg.connect(lasting.postgres_url("audit_journal"))
        rows = await owner.fetch(f"SELECT pid {CONNECTIONS}")
        await owner.close()
        for row in rows:
            os.kill(row["pid"], signal.SIGSTOP)
        try:
            call = asyncio.create_task(memory.audit("ann"))
            await asyncio.sleep(0.1)
            call.cancel()
            await asyncio.wait([call], timeout=20)
            assert call.cancelled()
        finally:
            for row in rows:
                os.kill(row["pid"], signal.SIGCONT)
        assert await actions(memory) == [("add", record.id)]
