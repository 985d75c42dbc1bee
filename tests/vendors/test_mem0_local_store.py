"""mem0's local store, which by itself is safe for nobody: many threads, clients, and loops on one folder."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.mem0.shared_library import SharedLibrary, shared_library
from waiting import until

from openproto import AsyncMemory, Memory, OpenProtoError, ProviderError, ProviderUnavailableError

ADDS = 400


class Constant:
    model = "constant"

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[1.0] * self.dim for _ in texts]


async def test_after_400_adds_from_many_threads_clients_and_loops_every_memory_is_found(folder: Path) -> None:
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
        contents = [record.content for user in range(16) async for record in memory.iter(f"user {user}", page_size=500)]
        wanted = [f"thread note {n}" for n in range(ADDS // 2)]
        wanted += [f"{name} note {n}" for name in ("here", "there") for n in range(ADDS // 4)]
        assert sorted(contents) == sorted(wanted)
        for n in range(0, ADDS // 4, 20):
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


def test_a_client_that_was_closed_meanwhile_gets_no_turn() -> None:
    library, client, closed = SharedLibrary(shared=True), object(), list[object]()
    library.enter(client, {}, lambda config: "mem0")
    with library.turn(client) as memory:
        assert memory == "mem0"
    library.leave(client, closed.append)
    with pytest.raises(ProviderUnavailableError, match="closed while"), library.turn(client):
        pass
    assert closed == ["mem0"]


async def test_calls_that_wait_for_the_store_end_at_once_never_happen_and_hold_up_no_closing(folder: Path) -> None:
    def threads() -> int:
        return sum(thread.name.startswith("openproto-mem0") for thread in threading.enumerate())

    place = shared_library("qdrant", str(folder))
    memory = AsyncMemory("mem0", path=folder, close_timeout=0.4)
    assert (await memory.list("ann")).items == []
    with place.lock:  # as a slow call holds it
        calls = [asyncio.ensure_future(memory.add(f"note {n}", user_id="ann")) for n in range(100)]
        await until(lambda: threads() == 1)
        for call in calls:
            call.cancel()
        _, pending = await asyncio.wait(calls, timeout=0.5)
        assert (pending, threads()) == (set(), 1)
    assert (await memory.list("ann")).items == []
    with place.lock:
        async with asyncio.timeout(1):
            await memory.aclose()
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
