"""Behind PgBouncer in transaction mode: every statement may meet another server connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pytest
from openproto_adapters.postgres import Postgres, queries
from openproto_adapters.postgres.private import keeper
from openproto_conformance import ProviderSuite
from postgres_tools import LONG, At, Database, Server, connected
from waiting import cancelled

from openproto import AsyncMemory, MemoryRecord, Provider, ProviderError

pytestmark = pytest.mark.pgbouncer

POOL_SIZE = 3
MakeBehind: TypeAlias = Callable[..., AsyncMemory]


@pytest.fixture(scope="session")
def bouncer(server: Server) -> Iterator[str]:
    """The real PgBouncer before the server; returns the folder of its socket."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    assert program, "PgBouncer is not installed: apt-get install -y pgbouncer (macOS: brew install pgbouncer)"
    folder = Path(tempfile.mkdtemp(prefix="op-pgb-", dir="/tmp"))
    folder.chmod(0o755)
    # A separate role, so that its lasting connections are not taken for leaked ones.
    roles = "CREATE ROLE bouncer LOGIN SUPERUSER; CREATE ROLE bouncer_2 LOGIN;"
    asyncio.run(At(server.dsn()).execute(f"{roles} GRANT CREATE ON DATABASE postgres TO bouncer_2"))
    # It refuses to run as root, and only the server's own user may enter the folder of the server's socket.
    shutil.chown(folder, server.place.uid, server.place.gid)
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"""[databases]
secured = host={server.place.sockets} port={keeper.PORT} user=bouncer_2 dbname=postgres
* = host={server.place.sockets} port={keeper.PORT} user=bouncer

[pgbouncer]
listen_addr =
listen_port = 6432
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = 200
server_round_robin = 1
logfile = {folder}/log
"""
    )
    as_user: dict[str, Any] = {"user": server.place.uid, "group": server.place.gid, "extra_groups": []}
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    running = subprocess.Popen([program, config], **as_user, **quiet)
    try:
        deadline = time.monotonic() + LONG
        while not (folder / ".s.PGSQL.6432").exists():
            assert running.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield str(folder)
    finally:
        running.kill()
        running.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def url(bouncer: str) -> str:
    return f"postgresql://postgres@/postgres?host={bouncer}&port=6432"


@pytest.fixture
def behind(db: Database, url: str) -> MakeBehind:
    return lambda **overrides: db.client(**{"url": url, "statement_cache_size": 0, **overrides})


@pytest.fixture(scope="class", autouse=True)
def _url(request: pytest.FixtureRequest, url: str) -> None:
    if request.cls is not None:
        request.cls.url = url


async def in_each_session(url: str, query: str) -> set[tuple[Any, ...]]:
    """Return the rows of a query in every session that PgBouncer keeps."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected(url)) for _ in range(POOL_SIZE)]
        return {tuple(row) for row in await asyncio.gather(*(one.fetchrow(query) for one in opened))}


# Not `cancellation` every day: PgBouncer 1.18 itself ends there one time in three, "bad client state", where a client
# cancels several calls in one moment. The storms below cancel behind it as well.
@pytest.mark.everyday("basics", "concurrency", "every verb", "isolation", faces=("async",))
class TestBehindPgBouncer(ProviderSuite):
    """What a bouncer could spoil: every verb, and many clients at once."""

    quick = True
    url: ClassVar[str]

    def provider(self) -> Provider:
        return self.pooled(10)

    def pooled(self, size: int) -> Provider:
        return Postgres(self.url, schema="suite", embedder="none", statement_cache_size=0, pool_max=size)


@pytest.mark.parametrize("pool_max", [1, 6])
async def test_a_storm_of_cancellations_hits_no_other_client(behind: MakeBehind, pool_max: int) -> None:
    rng = random.Random(pool_max)
    async with behind(pool_max=pool_max) as memory, behind(pool_max=2, retries=0) as neighbour:
        await asyncio.gather(*(memory.add(f"tea {n}", user_id="ada") for n in range(30)))
        calls = 0

        async def work() -> None:
            nonlocal calls
            while True:
                assert len(await neighbour.search("tea", "ada")) == 10
                calls += 1

        verbs: list[Callable[[], Any]] = [
            lambda: memory.search("tea", "ada"),
            lambda: memory.add("stormy", user_id="bob"),
            lambda: memory.list("ada"),
        ]

        async def one() -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rng.random() * 0.02):
                    await rng.choice(verbs)()

        working = asyncio.create_task(work())
        for _ in range(15):
            await asyncio.gather(*(one() for _ in range(10)))
        assert calls
        assert await cancelled(working)
        found = await asyncio.gather(*(memory.list("ada") for _ in range(2 * pool_max)))
        assert all(len(page.items) == 30 for page in found)


async def test_users_and_sessions_are_kept_apart(
    behind: MakeBehind, bouncer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secured = f"postgresql://bouncer_2@/secured?host={bouncer}&port=6432"
    # Not jit: asyncpg turns it off and on again while it asks for types, which may meet two sessions here.
    names = ("search_path", "statement_timeout", "lock_timeout", "plan_cache_mode", "openproto.users")
    query = "SELECT " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in names)
    before = await in_each_session(secured, query)
    async with behind(url=secured, pool_min=6, audit_reads=False) as memory:
        users = [f"user {n}" for n in range(8)]
        await memory.add_many([{"content": "note", "user_id": user} for user in users])
        monkeypatch.setattr(queries, "OWN", "{}::text IS NOT NULL")
        pages = await asyncio.gather(*(memory.list(user) for user in users * 20))
        assert [[record.user_id for record in page.items] for page in pages] == [[user] for user in users * 20]
        assert await in_each_session(secured, query) == before
        assert await memory.delete_all("user 0") == 1
        assert len((await memory.list("user 1")).items) == 1


async def test_where_prepared_statements_are_not_followed_the_option_to_set_is_named(behind: MakeBehind) -> None:
    # From 1.21 on PgBouncer follows them and everything works; before, the error must name the option.
    try:
        async with behind(statement_cache_size=100, pool_min=4, pool_max=4, retries=0) as memory:
            adding = (memory.add(f"fact {n}", user_id="ada") for n in range(40))
            outcomes = await asyncio.gather(*adding, return_exceptions=True)
    except ProviderError as error:
        outcomes = [error]
    for outcome in outcomes:
        assert isinstance(outcome, MemoryRecord) or "statement_cache_size=0" in str(outcome)
