"""The audit journal next to a backend without one: what it records, and what happens when one of the two fails."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import lasting
import pytest
from plain_sqlite import PlainSqlite
from store_suites import locked
from waiting import cancelled

from openproto import AsyncMemory, Provider, ProviderUnavailableError, ScopeDeniedError, UnauthorizedError, registry
from openproto.client import settings
from openproto.layers.audit import Audited
from openproto.layers.journals import sqlite as sqlite_journal
from openproto.layers.layer import Layer
from openproto.requests import RecordRef

Made: TypeAlias = Callable[..., AsyncMemory]
CONNECTIONS = "FROM pg_stat_activity WHERE application_name = 'openproto-audit' AND datname = current_database()"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def made(file: Path) -> Made:
    """Makes a client of a backend, with a journal in the file unless `audit` names another one."""

    def make(backend: type[PlainSqlite] = PlainSqlite, **options: Any) -> AsyncMemory:
        options = {"audit": f"sqlite:///{file}", "retries": 0, **options}
        return AsyncMemory(backend(file.with_name("memory.db")), **options)

    return make


def in_postgres() -> str:
    return f"{lasting.postgres_url('audit_journal')}&schema=t_{os.urandom(6).hex()}"


async def actions(memory: AsyncMemory) -> list[tuple[str, str | None]]:
    entries = reversed(await memory.audit("ann"))
    return [(entry.action, entry.memory_id) for entry in entries if entry.action not in ("audit", "list")]


async def test_the_file_is_private_and_reads_may_be_left_out(made: Made, file: Path) -> None:
    async with made(audit_reads=False) as memory:
        for _ in range(2):  # what is repeated is not recorded again
            await memory.add("tea", user_id="ann", idempotency_key="k")
        await memory.list("ann")
        assert [entry.action for entry in await memory.audit("ann")] == ["add"]
        assert [entry.action for entry in await memory.audit("ann")] == ["add"]
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_clients_that_open_a_new_journal_at_once_share_it(made: Made, kind: str) -> None:
    where = {} if kind == "sqlite" else {"audit": in_postgres()}
    clients = [made(**where) for _ in range(6)]
    records = await asyncio.gather(*(client.add(f"note {n}", user_id="ann") for n, client in enumerate(clients)))
    assert sorted(await actions(clients[0])) == sorted(("add", record.id) for record in records)
    for client in clients:
        await client.aclose()


async def test_the_provider_looks_like_the_one_that_it_wraps_and_a_fresh_one_is_not_open(file: Path) -> None:
    inner = PlainSqlite(file.with_name("memory.db"))
    audited = Audited(inner, f"sqlite:///{file}")
    fresh = audited.fresh()
    assert (audited.name, audited.cancellation) == (inner.name, inner.cancellation)
    assert audited.verbs == inner.verbs | {"audit"}
    async with AsyncMemory(audited) as memory:
        claims, own = await audited.capabilities(), await inner.capabilities()
        assert claims.verbs == [*own.verbs, "audit"]
        assert claims.features == own.features.model_copy(update={"supports_audit": True})
        assert claims.x_openproto.support["audit"] == "emulated"
        assert (await audited.describe()).items() >= {**await inner.describe(), "audit journal": str(file)}.items()
        record = await memory.add("tea", user_id="ann")
        with pytest.raises(ProviderUnavailableError):
            await fresh.get(RecordRef(id=record.id))
    reports: list[Any] = []
    await fresh.reindex(reports.append)  # of a store without vectors there is nothing to report
    await fresh.close()
    assert reports == []


def test_a_layer_passes_on_everything_that_a_provider_has() -> None:
    """What is not is built on the provider's name and its operations, which the layer shares."""
    kept = {"name", "cancellation", "requires", "closed_meanwhile", "not_open", "unsupported"}
    kept |= {"add_as_batch", "explain", "lacking", "on_duplicate"}
    assert {name for name in vars(Provider) if not name.startswith("_")} - set(vars(Layer)) == kept


def test_what_cannot_have_a_journal_is_refused_without_the_url_being_repeated(made: Made, file: Path) -> None:
    with pytest.raises(ValueError, match="'sqlite' keeps an audit log already"):
        AsyncMemory("sqlite", path=file.with_name("memory.db"), audit=f"sqlite:///{file}")
    for url in (
        *("", "audit.db", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/audit.db"),
        *("mysql://app:correct-horse@host/db", "postgresql://app:correct-horse@host/db?schema=No;"),
        "postgresql://app:correct-horse@[host/db",
    ):
        with pytest.raises(ValueError, match="audit= wants") as caught:
            made(audit=url)
        assert "correct-horse" not in f"{caught.value} {caught.value.__context__}"


async def test_a_journal_that_cannot_be_had_fails_the_opening_and_leaves_nothing_open(made: Made, file: Path) -> None:
    text = file.with_name("text")
    text.write_text("not a database, but longer than the header of one " * 10)
    for url, says in (
        ("sqlite:////dev/null/audit.db", "audit journal"),
        ("postgresql://app:correct-horse@127.0.0.1:1/audit", "audit journal"),
        (f"sqlite:///{text}", "does not hold the audit journal"),
    ):
        client = made(audit=url)
        with pytest.raises(Exception, match=says) as caught:
            await client.__aenter__()
        assert "correct-horse" not in f"{caught.value} {caught.value.__cause__}"
        provider: Any = client._session.provider
        assert provider.inner._database is None


async def test_delete_all_records_what_it_deleted_before_it_was_cancelled(made: Made) -> None:
    begun = 0
    reached = asyncio.Event()

    class Slow(PlainSqlite):
        async def delete(self, ref: RecordRef) -> None:
            nonlocal begun
            begun += 1
            if begun > 3:  # in the middle of a loop
                reached.set()
                await asyncio.sleep(60)
            await super().delete(ref)

    async with made(Slow) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(8)])
        before = {record.id for record in await memory.list("ann")}
        call = asyncio.create_task(memory.delete_all("ann"))
        await reached.wait()
        await cancelled(call)
        gone = before - {record.id for record in await memory.list("ann")}
        assert {id for action, id in await actions(memory) if action == "delete"} == gone


async def test_delete_all_passes_over_what_somebody_else_deletes_and_ends(made: Made) -> None:
    class Racing(PlainSqlite):
        async def delete(self, ref: RecordRef) -> None:
            await super().delete(ref)
            await super().delete(ref)

    async with made(Racing) as memory:
        await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(520)])
        assert await memory.delete_all("ann") == 0
        assert (await memory.list("ann")).items == []
        assert "delete" not in {action for action, _ in await actions(memory)}


async def test_while_the_journal_takes_nothing_writes_are_refused_before_the_change(
    made: Made, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite_journal, "_LOCK_TIMEOUT", 0.1)
    async with made() as writer:
        with locked(file):
            first, _ = await asyncio.gather(writer.add("tea", user_id="ann"), writer.add("cocoa", user_id="bob"))
            (logged,) = [record for record in caplog.records if "waits for the journal" in record.getMessage()]
            assert (logged.levelno, "tea" in caplog.text) == (logging.ERROR, False)
            changes: list[Any] = [writer.add("milk", user_id="ann"), writer.update(first.id, content="coffee")]
            for refused in (*changes, writer.delete(first.id), writer.delete_all("ann")):
                with pytest.raises(ProviderUnavailableError, match="audit journal cannot be used now"):
                    await refused
            [outcome] = await writer.add_many([{"content": "milk", "user_id": "ann"}])
            assert isinstance(outcome, ProviderUnavailableError)
            assert (await writer.health()).status == "unavailable"
            assert (await writer.list("ann")).items == [first]
        second = await writer.add("honey", user_id="ann")
        assert await actions(writer) == [("add", first.id), ("add", second.id)]
        assert (await writer.health()).status == "ok"


async def test_closing_leaves_a_stuck_journal(made: Made, file: Path, caplog: pytest.LogCaptureFixture) -> None:
    memory = made(close_timeout=1.0)
    await memory.list("ann")
    with locked(file):
        call = asyncio.create_task(memory.add("tea", user_id="ann"))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(memory.aclose(), 4)
        (logged,) = [record for record in caplog.records if "1 write entries were lost" in record.getMessage()]
        assert logged.levelno == logging.ERROR
        async with asyncio.timeout(2):
            assert (await call).content == "tea", "the write did happen"
            while len(asyncio.all_tasks()) > 1:  # until the tasks of the journal have ended
                await asyncio.sleep(0.01)


async def test_the_environment_may_name_the_journal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = registry.provider_class
    for module in (registry, settings):
        monkeypatch.setattr(module, "provider_class", lambda name: PlainSqlite if name == "plain" else lookup(name))
    path, journal = str(file.with_name("memory.db")), f"sqlite:///{file}"
    for name, value in {"PROVIDER": "plain", "PATH": path, "AUDIT": journal}.items():
        monkeypatch.setenv(f"OPENPROTO_{name}", value)
    async with AsyncMemory.from_env() as memory:
        record = await memory.add("tea", user_id="ann")
        assert await actions(memory) == [("add", record.id)]
    monkeypatch.setenv("OPENPROTO_PROVIDER", "sqlite")
    async with AsyncMemory.from_env() as memory:
        assert not isinstance(memory._session.provider, Audited), "sqlite keeps its own log"


async def test_a_role_that_may_only_write_to_the_table_is_enough(made: Made) -> None:
    url, schema, role = lasting.postgres_url("audit_journal"), f"t_{os.urandom(6).hex()}", f"r_{os.urandom(6).hex()}"
    restricted = url.replace("ordinary@", f"{role}@", 1) + f"&schema={schema}"
    owner = await asyncpg.connect(url)
    try:
        await owner.execute(f"CREATE ROLE {role} LOGIN")
        with pytest.raises(ScopeDeniedError, match="neither use"):
            await made(audit=restricted).add("tea", user_id="ann")
        async with made(audit=f"{url}&schema={schema}"):
            pass
        rights = f"GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT, INSERT ON {schema}.audit TO {role}"
        await owner.execute(rights)
        async with made(audit=restricted) as memory:
            record = await memory.add("tea", user_id="ann")
            assert await actions(memory) == [("add", record.id)]
        with pytest.raises(UnauthorizedError):
            await made(audit=url.replace("ordinary@", "nobody_at_all@", 1)).add("tea", user_id="ann")
    finally:
        await owner.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; DROP ROLE IF EXISTS {role}")
        await owner.close()


async def test_a_postgres_journal_survives_lost_connections_and_a_server_that_does_not_answer(made: Made) -> None:
    owner = await asyncpg.connect(lasting.postgres_url("audit_journal"))
    async with made(audit=in_postgres(), retries=2) as memory:
        first = await memory.add("tea", user_id="ann")
        await owner.execute(f"SELECT pg_terminate_backend(pid) {CONNECTIONS}")
        second = await memory.add("milk", user_id="ann")
        pids = [row["pid"] for row in await owner.fetch(f"SELECT pid {CONNECTIONS}")]
        await owner.close()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            call = asyncio.create_task(memory.audit("ann"))
            await asyncio.sleep(0.1)
            assert await cancelled(call)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        assert await actions(memory) == [("add", first.id), ("add", second.id)]
