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
from openproto_adapters.postgres.private import keeper, server
from postgres_tools import MakeClient, Server, execute, until, value

from openproto import AsyncMemory, ProviderError, ProviderUnavailableError


class Standby:
    """A copy of a server that follows it."""

    def __init__(self, primary: Server) -> None:
        self._programs = server._binaries(primary.place, server._package())
        self._user = {"user": primary.place.uid, "group": primary.place.gid, "extra_groups": []}
        self._home = primary.home / "run" / "standby"
        self._primary = primary.place.sockets

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={quote(str(self._home))}&port={keeper.PORT}"

    def run(self, program: str, *arguments: str) -> None:
        options: dict[str, Any] = {**self._user, "cwd": self._primary, "capture_output": True, "text": True}
        done = subprocess.run([self._programs / program, *arguments], timeout=60, **options)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        at = ["-h", str(self._primary), "-p", str(keeper.PORT), "-U", "postgres"]
        self.run("pg_basebackup", *at, "-D", str(self._home), "-R", "-c", "fast", "-X", "stream")
        self.run(
            "pg_ctl", "-D", str(self._home), "-w", "-l", str(self._home / "log"), "-o", f"-k {self._home}", "start"
        )

    def stop(self) -> None:
        self.run("pg_ctl", "-D", str(self._home), "-m", "immediate", "stop")


@pytest.fixture
async def standby(server: Server, make: MakeClient) -> AsyncIterator[Standby]:
    """A replica of the server, which has the schema."""
    async with make():
        pass
    made = Standby(server)
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


async def shows(memory: AsyncMemory, count: int) -> bool:
    return len((await memory.list("ada")).items) == count


async def test_a_replica_serves_and_whatever_makes_its_answers_old_is_an_error_of_its_own(
    make: MakeClient, dsn: str, schema: str, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "CHECK_EVERY", -1.0)
    options = {"url": dsn, "schema": schema, "embedder": "none", "read_url": standby.dsn, "read_lag": 0.05}
    provider = Postgres(**options)
    async with AsyncMemory(provider, retries=0) as memory:
        record = await memory.add("likes tea", user_id="ada")
        await until(lambda: shows(memory, 1), "the replica to follow")
        assert [result.memory.id for result in await memory.search("tea", "ada")] == [record.id]
        assert (await memory.context("tea", "ada")).citations
        assert "serves" in (await provider.describe())["replica"]

        await execute(standby.dsn, "SELECT pg_wal_replay_pause()")
        await memory.add("likes milk", user_id="ada")
        assert (await memory.get(record.id, user_id="ada")).id == record.id  # which the primary answers
        with pytest.raises(ProviderUnavailableError, match=r"s behind its primary.*raise read_lag="):
            await until(lambda: shows(memory, 2), "never")
        await execute(standby.dsn, "SELECT pg_wal_replay_resume()")
        await asyncio.sleep(0.1)
        await until(lambda: shows(memory, 2), "the replica to catch up")

        await execute(standby.dsn, "ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        fed = "SELECT count(*) FROM pg_stat_wal_receiver"
        await until(lambda: _is(standby, fed, 0), "the replica to be cut off")
        with pytest.raises(ProviderUnavailableError, match=r"receives nothing.*primary_conninfo"):
            await memory.list("ada")

        await execute(standby.dsn, "SELECT pg_promote()")
        with pytest.raises(ProviderError, match=r"takes writes: a replica that was promoted"):
            await memory.search("tea", "ada")
        assert "promoted" in (await provider.describe())["replica"]
        assert len((await memory.users()).items) == 1


async def _is(standby: Standby, statement: str, expected: int) -> bool:
    return await value(standby.dsn, statement) == expected


async def test_a_read_url_that_leads_elsewhere_is_named(make: MakeClient, dsn: str, tmp_path: Path) -> None:
    empty = dsn.replace("/postgres?", "/template1?")
    for url, kind, says in (
        (empty, ProviderUnavailableError, "newest tables"),
        (f"postgresql://postgres@/x?host={tmp_path}", ProviderUnavailableError, "reached"),
        ("postgresql://x:secret@[/", ValueError, "^read_url= is not a PostgreSQL URL(?!.*secret)"),
    ):
        with pytest.raises(kind, match=says):
            async with make(read_url=url, retries=0):
                pass
