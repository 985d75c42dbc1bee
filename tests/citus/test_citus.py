"""What a cluster adds to what the suite asks of a provider: distribution, a worker that is down, shards that move."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from cluster_tools import coordinator, drop_around, execute, workers
from openproto_adapters.postgres import Postgres
from openproto_adapters.postgres.citus import shards
from openproto_adapters.postgres.schema import schema_script
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, NotFoundError, ProviderError, ProviderUnavailableError

pytestmark = pytest.mark.citus

SCHEMA = "clustered"
USERS = [f"user {n}" for n in range(24)]

DISTRIBUTED = f"""
SELECT relname::text, partmethod::text, dense_rank() OVER (PARTITION BY partmethod ORDER BY colocationid)
FROM pg_dist_partition JOIN pg_class ON pg_class.oid = logicalrelid WHERE relnamespace = '{SCHEMA}'::regnamespace
ORDER BY relname
"""
SPREAD = [("audit", "h", 1), ("keys", "h", 1), ("memories", "h", 1), ("store", "n", 1)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield from drop_around(SCHEMA)


@pytest.fixture
async def memory() -> AsyncIterator[AsyncMemory]:
    async with client() as opened:
        yield opened


def client(**options: Any) -> AsyncMemory:
    return AsyncMemory("postgres", **{"url": coordinator(), "schema": SCHEMA, "embedder": "none", **options})


async def rows(sql: str, *args: Any) -> list[Any]:
    connection = await asyncpg.connect(coordinator(), server_settings={"citus.override_table_visibility": "off"})
    try:
        return [tuple(row) for row in await connection.fetch(sql, *args)]
    finally:
        await connection.close()


async def worker_of(user_id: str) -> tuple[int, int]:
    """Return the shard of the user's memories, and the node that has it."""
    ((shard, node),) = await rows(
        "SELECT shardid, nodeid FROM pg_dist_placement JOIN pg_dist_node USING (groupid) "
        f"WHERE shardid = get_shard_id_for_distribution_column('{SCHEMA}.memories', $1::text)",
        user_id,
    )
    return shard, node


async def test_a_fresh_schema_is_distributed_and_tables_in_use_are_by_the_script(memory: AsyncMemory) -> None:
    assert await rows(DISTRIBUTED) == SPREAD
    await memory.aclose()
    await execute(f"DROP SCHEMA {SCHEMA} CASCADE", schema_script(SCHEMA))
    async with client() as before:
        kept = await before.add("written on one server", user_id=USERS[0], x_openproto={"conversation": "c", "turn": 1})
        assert await rows(DISTRIBUTED) == []
    script = Postgres(coordinator(), schema=SCHEMA).schema_script(distribute=True)
    await execute(script, script)
    async with client() as after:
        assert await rows(DISTRIBUTED) == SPREAD
        assert await after.get(kept.id, user_id=USERS[0]) == kept
        assert [entry.memory_id for entry in await after.audit(USERS[0]) if entry.action == "add"] == [kept.id]


async def test_a_record_names_the_model_that_came_later(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MODEL_HOLDS", 600.0)
    with pytest.raises(NotFoundError):
        await memory.get("00000000-0000-7000-8000-000000000000", user_id=USERS[0])
    async with client(embedder=HashEmbedder()) as other:
        added = await other.add("likes tea", user_id=USERS[0])
    assert added.embedding_model == HashEmbedder().model
    assert await memory.get(added.id, user_id=USERS[0]) == added
    assert (await memory.list(USERS[0])).items == [added]


async def test_half_distributed_tables_are_refused_until_the_script_has_done_the_rest() -> None:
    await execute(schema_script(SCHEMA, row_security=False), f"SELECT create_reference_table('{SCHEMA}.store')")
    with pytest.raises(ProviderError, match="half distributed: audit, keys, memories"):
        await client().list(USERS[0])
    await execute(schema_script(SCHEMA, distribute=True))
    provider = Postgres(coordinator(), schema=SCHEMA, embedder="none")
    async with AsyncMemory(provider) as memory:
        assert (await memory.health()).status == "ok"
        about = await provider.describe()
    assert "distributed by user" in about["Citus"]
    assert about["servers"].count("pgvector") == len(await rows("SELECT FROM pg_dist_node"))
    assert about["row security"].startswith("off")


async def test_a_worker_that_is_down_fails_the_calls_of_its_users_alone(memory: AsyncMemory) -> None:
    places = {user: (await worker_of(user))[1] for user in USERS}
    down = places[USERS[0]]
    ((port,),) = await rows("SELECT nodeport FROM pg_dist_node WHERE nodeid = $1", down)
    await execute(f"UPDATE pg_dist_node SET nodeport = 1 WHERE nodeid = {down}")
    try:
        async with client() as cut, asyncio.timeout(60):
            for user, node in places.items():
                for call in (cut.add("kept", user_id=user), cut.list(user), cut.search("kept", user)):
                    if node == down:
                        with pytest.raises(ProviderUnavailableError, match="a worker of the Citus cluster"):
                            await call
                    else:
                        assert await call
    finally:
        await execute(f"UPDATE pg_dist_node SET nodeport = {port} WHERE nodeid = {down}")
    assert not (await memory.list(USERS[0])).items


async def test_a_thousand_cancellations_leave_no_lock_and_nothing_prepared_on_any_server(memory: AsyncMemory) -> None:
    chance = random.Random(7)
    first = await memory.add_many([{"content": "first", "user_id": user} for user in USERS])
    ids = {record.user_id: record.id for record in first}  # type: ignore[union-attr]

    async def cancelled(number: int) -> None:
        user = USERS[number % len(USERS)]
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: memory.add(f"cancelled {number}", user_id=user),
            lambda: memory.update(ids[user], user_id=user, content=f"changed {number}"),
            lambda: memory.put(f"put {number}", user_id=user, key="k"),
            lambda: memory.add_many([{"content": f"of {number}, {n}", "user_id": user} for n in range(5)]),
        ]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(chance.random() * 0.02):
                await calls[number % 4]()

    for start in range(0, 1000, 8):
        await asyncio.gather(*(cancelled(start + n) for n in range(8)))
    await memory.aclose()
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'relation' AND relation > 16384 AND mode LIKE '%Exclusive%'"
    for url in (coordinator(), *await workers()):
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT count(*) FROM pg_prepared_xacts") == 0
        async with asyncio.timeout(10):  # a server may still be ending what was cancelled last
            while await connection.fetchval(held):
                await asyncio.sleep(0.1)
        await connection.close()


@pytest.mark.parametrize("mode", ["block_writes", "force_logical"])
async def test_shards_move_while_their_users_write_and_read(memory: AsyncMemory, mode: str) -> None:
    user = USERS[0]
    acknowledged: list[str] = []
    done = asyncio.Event()

    async def write(number: int) -> None:
        while not done.is_set():
            record = await memory.add(f"while it moves {number}", user_id=user)
            acknowledged.append(record.id)
            assert await memory.get(record.id, user_id=user) == record

    async def move() -> None:
        ports = "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND nodeid "
        for _ in range(2):
            shard, node = await worker_of(user)
            ((host, port),) = await rows(ports + "= $1", node)
            ((to, to_port), *_) = await rows(ports + "<> $1", node)
            await execute(f"SELECT citus_move_shard_placement({shard}, '{host}', {port}, '{to}', {to_port}, '{mode}')")
            assert (await worker_of(user))[1] != node
        done.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(move())
        for number in range(3):
            tasks.create_task(write(number))
    found = [record.id async for record in memory.iter(user)]
    assert sorted(found) == sorted(acknowledged)
    assert len(acknowledged) > 3
