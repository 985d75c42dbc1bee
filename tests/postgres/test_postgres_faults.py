"""A database that fails midway, lost answers, calls that are given up, writers at once, the largest, a replica."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from openproto_adapters.postgres import Postgres, replica
from openproto_adapters.postgres.private import keeper
from openproto_adapters.postgres.private import server as private
from postgres_tools import CLIENTS, At, Database, Door, calls_of, stored, through, whole_chain
from toy_embedders import HashEmbedder
from waiting import cancelled, until

from openproto import (
    AsyncMemory,
    ConflictError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

SECRET = "the private thought of ada"


async def error_of(call: Any) -> OpenProtoError:
    """Return the error of a call, which gives no content away."""
    try:
        (error,) = await call  # add_many has it as its outcome
    except OpenProtoError as raised:
        error = raised
    assert isinstance(error, OpenProtoError)
    assert SECRET not in f"{error} {error!r} {error.to_envelope()}"
    return error


async def terminate_all(db: Database) -> None:
    await db.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {CLIENTS}")


async def test_a_connection_killed_in_the_middle_is_a_typed_error_and_the_next_call_works(db: Database) -> None:
    async with db.client(retries=0, pool_max=1) as memory:
        kept = await memory.add("kept", user_id="ada")
        for call in calls_of(memory, kept.id, SECRET).values():
            async with db.stuck():
                failing = asyncio.create_task(error_of(call()))
                await db.running(1)
                await terminate_all(db)
                error = await failing
                assert (type(error), SECRET in whole_chain(error)) == (ProviderUnavailableError, False)
            assert (await memory.list("ada")).items == [kept]
        provider: Any = memory._session.provider
        async with provider.snapshot(vectors=False) as snapshot:
            assert [user async for user in snapshot.users()] == ["ada"]
        assert (await memory.list("ada")).items == [kept]  # the only connection is back


async def test_a_connection_killed_while_idle_costs_no_call(db: Database, memory: AsyncMemory) -> None:
    record = await memory.add("kept", user_id="ada")
    for pause in (0.0, 0.1):
        await terminate_all(db)
        await asyncio.sleep(pause)
        assert (await memory.get(record.id)).content == "kept"
        await terminate_all(db)
        await asyncio.sleep(pause)
        await memory.add("more", user_id="ada")


async def test_an_exhausted_pool_and_a_statement_timeout_of_the_server_are_typed_errors(db: Database) -> None:
    options: dict[str, Any] = {"retries": 0, "pool_max": 1, "acquire_timeout": 0.3}
    async with db.client(**options) as memory, db.client(url=f"{db.dsn}&statement_timeout=200", **options) as hasty:
        record = await memory.add("kept", user_id="ada")
        await hasty.list("ada")
        async with db.stuck():
            held = asyncio.create_task(memory.get(record.id))
            await db.running(1)
            with pytest.raises(ProviderUnavailableError, match=r"0\.3 s.*pool_max"):
                await memory.list("ada")
            with pytest.raises(ProviderTimeoutError, match="statement_timeout"):
                await hasty.update(record.id, content=SECRET)
        assert await held == await hasty.get(record.id) == record


async def test_a_database_that_takes_no_writes_says_so_and_still_reads(db: Database) -> None:
    async with db.client(embedder="local") as writer:
        record = await writer.add("drinks tea", user_id="ada")
    async with db.client(url=f"{db.dsn}&default_transaction_read_only=on", embedder="local", retries=0) as memory:
        assert (await memory.search("tea", "ada"))[0].memory.id == record.id
        assert (await memory.get(record.id)).content == "drinks tea"
        for call in (memory.add(SECRET, user_id="ada"), memory.delete(record.id)):
            with pytest.raises(ProviderUnavailableError, match="takes no writes"):
                await call


FULL_AUDIT = """
    CREATE FUNCTION {schema}.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON {schema}.audit FOR EACH ROW EXECUTE FUNCTION {schema}.full_disk()
"""
"""Lets the server find its disk full when the audit entry, the last part of each write, is to be written."""


async def test_a_full_disk_is_a_typed_error_and_no_part_of_the_write_stays(db: Database) -> None:
    async with db.client(retries=0, audit_reads=False) as memory:
        old = await memory.add("old", user_id="ada", idempotency_key="k1")
        await db.execute(FULL_AUDIT.format(schema=db.schema))
        for call in (
            memory.add(SECRET, user_id="ada", supersedes=[old.id], idempotency_key="k2"),
            memory.update(old.id, content=SECRET),
            memory.delete(old.id),
            memory.delete_all("ada"),
            memory.add_many([{"content": SECRET, "user_id": "ada", "supersedes": [old.id]}]),
        ):
            error = await error_of(call)
            assert (type(error), "full" in error.message) == (ProviderUnavailableError, True)
            assert SECRET not in whole_chain(error)
        assert (await memory.list("ada")).items == [old]
        await db.execute(f"DROP TRIGGER full_disk ON {db.schema}.audit")
        again = await memory.add(SECRET, user_id="ada", supersedes=[old.id], idempotency_key="k2")
        assert (await memory.get(old.id)).superseded_by == again.id
        assert [entry.action for entry in await memory.audit("ada")] == ["add", "add"]


async def test_dropped_tables_and_odd_constraints_are_typed_errors_that_repeat_no_content(db: Database) -> None:
    async with db.client(retries=0) as memory:
        record = await memory.add("fine", user_id="ada")
        await db.execute(f"ALTER TABLE {db.schema}.memories ADD CONSTRAINT odd CHECK (content NOT LIKE '%private%')")
        for verb in ("add", "update", "add_many"):
            await error_of(calls_of(memory, record.id, SECRET)[verb]())
        await db.execute(f"DROP SCHEMA {db.schema} CASCADE")
        error = await error_of(memory.add(SECRET, user_id="ada"))
        assert (type(error), "open the client again" in error.message) == (ProviderError, True)
        assert (await memory.health()).status == "unavailable"
    async with db.client() as memory:
        assert (await memory.add("new", user_id="ada")).content == "new"


async def test_closing_while_a_statement_is_stuck_is_bounded_and_ends_it(db: Database) -> None:
    async with db.client(pool_max=2, close_timeout=0.6) as memory:
        await memory.add("kept", user_id="ada")
        async with db.stuck():
            calls = [asyncio.create_task(memory.get(key=key, user_id="ada")) for key in "abcd"]
            await db.running(2)
            async with asyncio.timeout(10):
                await memory.aclose()
                await db.running(0)
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(outcome, Exception) for outcome in outcomes)


async def cancelled_at(call: asyncio.Future[Any], wakeup: int) -> bool:
    """Cancel the call just before it wakes up for the given time, when what it waited for is there already."""
    seen = 0
    while not call.done():
        waiter: Any = getattr(call, "_fut_waiter", None)
        if waiter is not None and waiter.done():
            seen += 1
            if seen == wakeup:
                await cancelled(call)
                return True
        await asyncio.sleep(0)
    return False


@pytest.mark.parametrize(("verb", "statement_cache_size"), [("get", 0), ("add", 0), ("search", 100), ("update", 100)])
async def test_a_call_cancelled_at_any_wakeup_is_over(db: Database, verb: str, statement_cache_size: int) -> None:
    # asyncpg parses a statement in one round trip and runs it in the next; in between the server's transaction is
    # open, with locks on the tables, and behind PgBouncer the server's connection is not free for others.
    locks = f"SELECT count(*) FROM pg_locks WHERE relation = '{db.schema}.memories'::regclass"
    async with db.client() as memory:
        record = await memory.add("kept", user_id="ada")
    wakeup = struck = 1
    while struck:
        # A fresh client each time: its connection has not seen the statement yet.
        async with db.client(pool_max=1, statement_cache_size=statement_cache_size, audit_reads=False) as memory:
            struck = await cancelled_at(asyncio.ensure_future(calls_of(memory, record.id, "new")[verb]()), wakeup)
            await db.becomes(locks, 0, 1)
            await db.running(0)
        wakeup += 1
    assert wakeup > 3


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


async def test_a_replica_serves_until_it_is_behind(db: Database, standby: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "CHECK_EVERY", -1.0)
    provider = Postgres(db.dsn, schema=db.schema, embedder="none", read_url=standby.dsn, read_lag=0.05)
    async with AsyncMemory(provider, retries=0) as memory:

        async def shows(count: int) -> bool:
            return len((await memory.list("ada")).items) == count

        record = await memory.add("likes tea", user_id="ada")
        await until(lambda: shows(1), 30)
        assert [result.memory.id for result in await memory.search("tea", "ada")] == [record.id]
        assert (await memory.context("tea", "ada")).citations
        assert "serves" in (await provider.describe())["replica"]

        await standby.execute("SELECT pg_wal_replay_pause()")
        await memory.add("likes milk", user_id="ada")
        assert (await memory.get(record.id, user_id="ada")).id == record.id  # which the primary answers
        with pytest.raises(ProviderUnavailableError, match=r"s behind its primary.*raise read_lag="):
            await until(lambda: shows(2), 30)
        await standby.execute("SELECT pg_wal_replay_resume()")
        await asyncio.sleep(0.1)
        await until(lambda: shows(2), 30)

        await standby.execute("ALTER SYSTEM SET primary_conninfo = ''", "SELECT pg_reload_conf()")
        await standby.becomes("SELECT count(*) FROM pg_stat_wal_receiver", 0, 30)
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


@pytest.fixture
async def lossy(db: Database) -> AsyncIterator[tuple[AsyncMemory, Door]]:
    """A client with one connection, through a door that can lose what passes."""
    door = Door()
    async with door.open(db.server) as address, db.client(url=through(address), pool_max=1) as memory:
        yield memory, door


async def prepare(memory: AsyncMemory) -> None:
    """Let the connection prepare both statements: what is lost next is the answer to one that was carried out."""
    await memory.add("first", user_id="bob")
    await memory.add_many([{"content": "first", "user_id": "bob"}])


@pytest.mark.parametrize("loses", ["question", "answer"])
async def test_what_is_asked_for_again_is_stored_once(lossy: tuple[AsyncMemory, Door], loses: str) -> None:
    memory, door = lossy
    items: list[dict[str, Any]] = [{"content": f"tea {n}", "user_id": "ada", "tags": ["t"]} for n in range(20)]
    items[-1]["idempotency_key"] = "k"
    await prepare(memory)
    await memory.add_many([{**item, "user_id": "bob"} for item in items])
    door.loses = loses
    outcomes = await memory.add_many(items)
    await prepare(memory)
    door.loses = loses
    record = await memory.add("tea", user_id="ada", tags=["t"], x_mem0={"n": 1})
    assert door.lost == memory.stats().retries == 2
    assert (await memory.list("ada")).items == [record, *(stored(outcome) for outcome in reversed(outcomes))]
    assert [entry.action for entry in await memory.audit("ada")].count("add") == 21


async def test_what_was_deleted_meanwhile_stays_deleted(db: Database, lossy: tuple[AsyncMemory, Door]) -> None:
    memory, door = lossy
    door.then = lambda: db.execute(f"DELETE FROM {db.schema}.memories WHERE content = 'gone'")
    await prepare(memory)
    door.loses = "answer"
    kept, outcome = await memory.add_many([{"content": text, "user_id": "ada"} for text in ("kept", "gone")])
    assert isinstance(outcome, ConflictError)
    assert door.lost == 1
    assert (await memory.list("ada")).items == [stored(kept)]


async def test_a_batch_is_one_statement(db: Database, memory: AsyncMemory) -> None:
    assert await memory.add_many([]) == []
    await memory.add_many([{"content": f"fact {n}", "user_id": "ada"} for n in range(50)])
    assert await db.value(f"SELECT count(DISTINCT xmin::text) FROM {db.schema}.memories") == 1


async def test_writers_that_supersede_the_same_records_in_opposite_order_do_not_deadlock(db: Database) -> None:
    async with db.client(pool_max=8, retries=0) as memory:
        ids = [(await memory.add(f"old {n}", user_id="ada")).id for n in range(20)]
        heir = await memory.add("heir", user_id="ada")
        for n in range(8):
            await asyncio.gather(
                *(memory.add("new", user_id="ada", supersedes=ids if n % 2 else ids[::-1]) for n in range(8)),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids]),
                memory.add_many([{"content": "b", "user_id": "ada", "supersedes": [id]} for id in ids[::-1]]),
                *(memory.update(heir.id, supersedes=[id]) for id in ids[n::8]),
            )
        assert sorted((await memory.get(heir.id)).supersedes) == sorted(ids)
        outcomes = await memory.add_many([{"content": "b", "user_id": "ada", "supersedes": ids}])
        assert stored(outcomes[0]).supersedes == ids


def vocabulary(count: int) -> list[str]:
    """Distinct words that no stemmer folds into each other and no compression shortens much."""
    rng = random.Random(count)
    words = ("".join(rng.choices("bcdfghklmnpqrtvwxz0123456789", k=5)) for _ in range(count + 500))
    return list(dict.fromkeys(words))[:count]


@pytest.mark.parametrize("dim", [512, 513, 2001])
async def test_the_widest_record_of_the_widest_user_is_stored_found_and_deleted(db: Database, dim: int) -> None:
    rng = random.Random(dim)
    user = "".join(chr(rng.randrange(0x10000, 0x20000)) for _ in range(256))
    everything: dict[str, Any] = {
        "scope": "/".join(["ÿ" * 51] * 9),
        "tags": [f"{n}" + "\U0001f9e0" * 120 for n in range(64)],
        "source": {"app": "\U0001f9e0" * 256, "type": "imported", "ref": "\U0001f9e0" * 256},
        "confidence": 1.0,
    }
    words = vocabulary(80)
    async with db.client(embedder=HashEmbedder(dim)) as memory:
        record = await memory.add(" ".join(words), user_id=user, idempotency_key="\U0001f511" * 256, **everything)
        (batched,) = await memory.add_many([{"content": " ".join(words[::-1]), "user_id": user, **everything}])
        assert (await memory.update(record.id, content=" ".join(words[:70]))).tags == everything["tags"]
        assert (await memory.search(words[75], user))[0].memory.id == stored(batched).id
        found = await memory.search(words[69], user, scope=everything["scope"], tag=everything["tags"][63])
        assert {result.memory.id for result in found} == {record.id, stored(batched).id}
        assert (await memory.audit(user))[-1].app == everything["source"]["app"]
        await memory.delete(record.id, user_id=user)


async def test_a_text_of_the_longest_length_is_found_by_any_of_its_first_words(db: Database) -> None:
    words = vocabulary(16_600)
    content = " ".join(words)
    content += "." * (100_000 - len(content))
    async with db.client() as memory:
        record = await memory.add(content, user_id="ada")
        stored((await memory.add_many([{"content": content, "user_id": "bob"}]))[0])
        assert (await memory.get(record.id)).content == content
        for user in ("ada", "bob"):
            for place in (0, 59, 60, 61, 5_000, 15_999):
                (found,) = await memory.search(words[place], user)
                assert found.score == pytest.approx(1.0)
            assert len(await memory.search(" ".join(words[:5_000]), user)) == 1
        assert await memory.search("absentword", "ada") == []
        await memory.update(record.id, content="short now")
        assert await memory.search(words[5_000], "ada") == []
        assert len(await memory.search("short", "ada")) == 1
