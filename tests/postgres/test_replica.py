"""A real streaming replica behind `read_url=`: it serves, lags, is cut off, and is promoted."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from openproto_adapters.postgres import Postgres, replica
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private import server as private
from postgres_tools import At, Database, until

from openproto import AsyncMemory, ProviderError, ProviderUnavailableError


@pytest.fixture
async def standby(db: Database, memory: AsyncMemory) -> AsyncIterator[At]:
    """A copy of the server, which has the db.schema, that follows it."""
    place, home = db.server.place, db.server.home / "run" / "standby"
    programs = private._binaries(place, private._package())
    user: dict[str, Any] = {"user": place.uid, "group": place.gid, "extra_groups": [], "cwd": place.sockets}

    def run(program: str, *arguments: str) -> None:
        command = [programs / program, "-D", str(home), *arguments]
        done = subprocess.run(command, timeout=60, capture_output=True, text=True, **user)
        assert done.returncode == 0, done.stderr

    primary = ("-h", str(place.sockets), "-p", str(keeper.PORT), "-U", "postgres")
    await asyncio.to_thread(run, "pg_basebackup", *primary, "-R", "-c", "fast", "-X", "stream")
    await asyncio.to_thread(run, "pg_ctl", "-w", "-l", str(home / "log"), "-o", f"-k {home}", "start")
    yield At(f"postgresql://postgres@/postgres?host={quote(str(home))}&port={keeper.PORT}")
    await asyncio.to_thread(run, "pg_ctl", "-m", "immediate", "stop")


async def test_a_replica_serves_until_its_answers_are_old(
    db: Database, standby: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "CHECK_EVERY", -1.0)
    provider = Postgres(db.dsn, schema=db.schema, embedder="none", read_url=standby.dsn, read_lag=0.05)
    async with AsyncMemory(provider, retries=0) as memory:

        async def shows(count: int) -> bool:
            return len((await memory.list("ada")).items) == count

        async def is_cut_off() -> bool:
            return await standby.value("SELECT count(*) FROM pg_stat_wal_receiver") == 0

        record = await memory.add("likes tea", user_id="ada")
        await until(lambda: shows(1), "the replica to follow")
        assert [result.memory.id for result in await memory.search("tea", "ada")] == [record.id]
        assert (await memory.context("tea", "ada")).citations
        assert "serves" in (await provider.describe())["replica"]

        await standby.execute("SELECT pg_wal_replay_pause()")
        await memory.add("likes milk", user_id="ada")
        assert (await memory.get(record.id, user_id="ada")).id == record.id  # which the primary answers
        with pytest.raises(ProviderUnavailableError, match=r"s behind its primary.*raise read_lag="):
            await until(lambda: shows(2), "never")
        await standby.execute("SELECT pg_wal_replay_resume()")
        await asyncio.sleep(0.1)
        await until(lambda: shows(2), "the replica to catch up")

        await standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        await until(is_cut_off, "the replica to be cut off")
        with pytest.raises(ProviderUnavailableError, match=r"receives nothing.*primary_conninfo"):
            await memory.list("ada")

        await standby.execute("SELECT pg_promote()")
        with pytest.raises(ProviderError, match=r"takes writes: a replica that was promoted"):
            await memory.search("tea", "ada")
        assert "promoted" in (await provider.describe())["replica"]
        assert len((await memory.users()).items) == 1


async def test_a_read_url_that_leads_elsewhere_is_named(db: Database, tmp_path: Path) -> None:
    empty = db.dsn.replace("/postgres?", "/template1?")
    for url, kind, says in (
        (empty, ProviderUnavailableError, "newest tables"),
        (f"postgresql://postgres@/x?host={tmp_path}", ProviderUnavailableError, "reached"),
        ("postgresql://x:secret@[/", ValueError, "^read_url= is not a PostgreSQL URL(?!.*secret)"),
    ):
        with pytest.raises(kind, match=says):
            async with db.client(read_url=url, retries=0):
                pass
