"""mem0's local store, which by itself is safe for nobody: many threads, clients, and loops on one folder."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.mem0 import Mem0
from openproto_adapters.mem0.shared_library import shared_library
from waiting import until

from openproto import (
    AsyncMemory,
    Memory,
    MemoryRecord,
    NotFoundError,
    OpenProtoError,
    ProviderError,
)

ADDS = 1600


class Constant:
    """An embedder that cannot tell texts apart."""

    model = "constant"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0] * self.dim for _ in texts]


@contextlib.contextmanager
def held(folder: Path) -> Any:
    """Hold the lock of the store, as a slow call does."""
    with shared_library("qdrant", str(folder)).lock:
        yield


async def test_after_1600_adds_from_many_threads_clients_and_loops_every_memory_is_found(folder: Path) -> None:
    def add_from_threads() -> None:
        with Memory("mem0", path=folder) as memory, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: memory.add(f"thread note {n}", user_id=f"user {n % 16}"), range(ADDS // 2)))

    async def add_from_a_loop(name: str) -> None:
        async with AsyncMemory("mem0", path=folder) as memory:
            adds = (memory.add(f"{name} note {n}", user_id=f"user {n % 16}") for n in range(ADDS // 4))
            await asyncio.gather(*adds)

    await asyncio.gather(
        asyncio.to_thread(add_from_threads),
        add_from_a_loop("here"),
        asyncio.to_thread(lambda: asyncio.run(add_from_a_loop("there"))),
    )
    # Opened anew: what is read has been written.
    async with AsyncMemory("mem0", path=folder) as memory:
        contents: list[str] = []
        for user in range(16):
            contents += [record.content async for record in memory.iter(f"user {user}", page_size=500)]
        wanted = [f"thread note {n}" for n in range(ADDS // 2)]
        wanted += [f"{name} note {n}" for name in ("here", "there") for n in range(ADDS // 4)]
        assert sorted(contents) == sorted(wanted)
        for n in range(0, 400, 40):
            hits = await memory.search(f"here note {n}", f"user {n % 16}", limit=5)
            assert f"here note {n}" in [hit.memory.content for hit in hits]


async def test_clients_of_one_process_and_one_configuration_share_a_store(folder: Path, run_python: Any) -> None:
    first, second = AsyncMemory("mem0", path=folder), AsyncMemory("mem0", path=str(folder) + "/.")
    config = {"vector_store": {"provider": "qdrant", "config": {"path": str(folder), "collection_name": "other"}}}
    program = (
        "import sys; from openproto import Memory, ProviderUnavailableError\n"
        "try:\n    Memory('mem0', path=sys.argv[1]).list('ann')\n"
        "except ProviderUnavailableError as error:\n    print(error)"
    )
    async with second:
        async with first:
            record = await first.add("tea", user_id="ann")
            with pytest.raises(ProviderError, match="another configuration"):
                await AsyncMemory("mem0", config=config).list("ann")
        assert (await second.get(record.id)).content == "tea"
        ran = await asyncio.to_thread(run_python, program, folder)
        assert "open in another process" in ran.stdout, ran.stderr
    with pytest.raises(ProviderError, match="built with the embedder 'wordllama-l2-supercat-256', and is opened"):
        await AsyncMemory("mem0", path=folder, embedder=Constant(256)).list("ann")
    async with AsyncMemory("mem0", path=folder) as third:
        assert (await third.get(record.id)).content == "tea"
    with pytest.raises(ProviderError, match="/dev/null/store cannot be created"):
        await AsyncMemory("mem0", path="/dev/null/store").list("ann")


async def test_an_update_that_races_a_delete_never_brings_the_memory_back(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as one:
        # The locks of the base would keep these two apart; those of the store must do it alone, as for processes.
        other = Mem0(folder)
        other.store_name = lambda: "elsewhere"  # type: ignore[method-assign]
        async with AsyncMemory(other) as two:
            for n in range(30):
                record = await one.add(f"note {n}", user_id="ann")
                racing = (one.update(record.id, content="late"), two.delete(record.id))
                updated, deleted = await asyncio.gather(*racing, return_exceptions=True)
                assert deleted is None
                assert isinstance(updated, MemoryRecord | NotFoundError)
                with pytest.raises(NotFoundError):
                    await one.get(record.id)
            assert (await one.list("ann")).items == []


async def test_an_add_that_was_cancelled_while_it_waited_for_the_store_never_happens(folder: Path) -> None:
    async with AsyncMemory("mem0", path=folder) as memory:
        with held(folder):
            calls = [asyncio.ensure_future(memory.add(f"note {n}", user_id="ann")) for n in range(5)]
            await asyncio.sleep(0.1)
            for call in calls:
                call.cancel()
            await asyncio.wait(calls, timeout=1)
        assert (await memory.list("ann")).items == []


async def test_a_hundred_cancelled_calls_leave_one_thread_and_a_client_that_answers(folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("openproto-mem0") for thread in threading.enumerate())

    async with AsyncMemory("mem0", path=folder) as memory:
        record = await memory.add("tea", user_id="ann")
        with held(folder):
            calls = [asyncio.ensure_future(memory.get(record.id)) for _ in range(100)]
            await until(lambda: threads() == 1)
            for call in calls:
                call.cancel()
            _, pending = await asyncio.wait(calls, timeout=0.5)
            assert not pending
        async with asyncio.timeout(1):
            assert (await memory.get(record.id)).content == "tea"


async def test_closing_does_not_wait_for_a_stuck_call_and_the_store_is_released_when_it_ends(folder: Path) -> None:
    memory = AsyncMemory("mem0", path=folder, close_timeout=0.4)
    await memory.list("ann")
    with held(folder):
        async with asyncio.timeout(1):
            await memory.aclose()
    place = shared_library("qdrant", str(folder))
    await until(lambda: not place._users)


async def test_a_collection_of_vectors_of_another_length_is_refused_and_left_closed(folder: Path) -> None:
    from qdrant_client import QdrantClient, models

    client = QdrantClient(path=str(folder))
    client.create_collection("mem0", models.VectorParams(size=1536, distance=models.Distance.COSINE))
    client.close()
    for _ in range(2):
        with pytest.raises(OpenProtoError, match="holds vectors of 1536 numbers, and the embedder makes 256"):
            await AsyncMemory("mem0", path=folder).list("ann")
    async with AsyncMemory("mem0", path=folder, embedder=Constant(1536)) as memory:
        await memory.add("tea", user_id="ann")
