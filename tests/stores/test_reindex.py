"""Re-embedding: online, resumable, and over when every memory has the vector of the new model."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.sqlite.reindexing import BATCH
from toy_embedders import HashEmbedder
from waiting import until

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, PayloadTooLargeError, ProviderError
from openproto.provider import ReindexProgress

WORDS = "tea coffee walks dog cat berlin paris piano violin novels chess swims".split()
SOME = BATCH + 10


def content(n: int) -> str:
    return f"{WORDS[n % 12]} {WORDS[n * 7 % 12]} number{n}"


async def fill(store: Any, embedder: Any, count: int) -> list[MemoryRecord]:
    async with store.client(embedder) as memory:
        await memory.add_many([{"content": content(n), "user_id": "ada"} for n in range(count)])
        return [record async for record in memory.iter("ada")]


async def check_whole(store: Any, embedder: Any) -> list[MemoryRecord]:
    """Check that each record has the vector of its own content by the model, and nothing else; return the records."""
    model, dim = (embedder.model, embedder.dim) if embedder != "none" else (None, None)
    assert await store.rows("SELECT model, dim, next_model FROM store") == [(model, dim, None)]
    async with store.client(embedder) as memory:
        records = [record async for record in memory.iter("ada")]
        for record in records[::37]:
            assert record.embedding_model == model
            best = (await memory.search(record.content, "ada"))[0]
            assert (best.memory.content, best.score) == (record.content, pytest.approx(1.0, abs=2e-3))
    return records


async def check_usable(store: Any, embedder: Any) -> None:
    """Check that the store is of the model it had, and is written and searched."""
    async with store.client(embedder) as memory:
        assert (await memory.search(content(3), "ada"))[0].memory.content == content(3)
        await memory.add("meanwhile", user_id="ada")


def held_after_a_batch(embedder: HashEmbedder) -> Any:
    """Return a report of progress that holds the embedder up from then on."""

    def report(_: ReindexProgress) -> None:
        embedder.busy.clear()
        embedder.go.clear()

    return report


async def stop_after_the_first_batch(store: Any, embedder: HashEmbedder) -> None:
    """Cancel a re-embedding while it embeds its second batch."""
    running = asyncio.create_task(store.reindex(embedder, held_after_a_batch(embedder)))
    await until(lambda: not embedder.go.is_set() and embedder.busy.is_set())
    running.cancel()
    await asyncio.sleep(0)
    embedder.go.set()  # closing waits for the embedder
    await asyncio.wait([running])


@asynccontextmanager
async def held(store: Any, embedder: HashEmbedder) -> AsyncIterator[None]:
    """A re-embedding that is held up in its first batch; it ends when the block is left."""
    embedder.go.clear()
    running = asyncio.create_task(store.reindex(embedder))
    await until(embedder.busy.is_set)
    yield
    embedder.go.set()
    await running


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (HashEmbedder(16, "old"), HashEmbedder(16, "new"), 600),
        (HashEmbedder(256, "old"), HashEmbedder(1024, "new"), BATCH),
        (HashEmbedder(1024, "old"), HashEmbedder(64, "new"), BATCH + 1),
        ("none", HashEmbedder(16, "new"), 40),
        (HashEmbedder(16, "old"), "none", 40),
        ("none", HashEmbedder(600, "new"), 1),
        (HashEmbedder(16, "old"), HashEmbedder(8, "new"), 0),
    ],
    ids=["same-dim", "to-long", "to-short", "from-text", "to-text", "text-to-long", "empty"],
)
async def test_every_memory_has_the_vector_of_the_new_model(store: Any, before: Any, after: Any, count: int) -> None:
    kept = await fill(store, before, count)
    progress = [step.done for step in await store.reindex(after)]
    assert progress == sorted(progress)
    assert not progress or progress[-1] == count
    now = await check_whole(store, after)
    assert [r.model_dump(exclude={"embedding_model"}) for r in now] == [
        r.model_dump(exclude={"embedding_model"}) for r in kept
    ]
    if before != "none":
        with pytest.raises(ProviderError, match="openproto reindex"):
            async with store.client(before):
                pass
    await store.reindex(after)  # again changes nothing
    await check_whole(store, after)


async def test_what_is_written_meanwhile_is_neither_lost_nor_stale(store: Any) -> None:
    first, second, third, *_ = await fill(store, HashEmbedder(16, "old"), 20)
    new = HashEmbedder(24, "new")
    async with store.client(HashEmbedder(16, "old")) as memory, held(store, new):
        await memory.add("added meanwhile", user_id="ada")
        await memory.update(first.id, content="changed meanwhile")
        await memory.put("put meanwhile", user_id="ada", key="k")
        await memory.delete(second.id)
        assert (await memory.search(third.content, "ada"))[0].memory.id == third.id
    assert {"added meanwhile", "changed meanwhile", "put meanwhile"} <= set(new.texts)
    assert len(await check_whole(store, new)) == 21
    async with store.client(HashEmbedder(24, "new")) as memory:
        for text in ("added meanwhile", "changed meanwhile", "put meanwhile"):
            best = (await memory.search(text, "ada"))[0]
            assert (best.memory.content, best.score) == (text, pytest.approx(1.0, abs=2e-3))


async def test_a_store_under_constant_writes_is_re_embedded(store: Any) -> None:
    written = await fill(store, HashEmbedder(16, "old"), 900)

    async def write(memory: AsyncMemory) -> str:
        for n in itertools.count():
            try:
                await memory.add(f"meanwhile {n} fresh{n}", user_id="ada")
                if n < 400:
                    await memory.update(written[n].id, content=f"changed {n} altered{n}")
                    await memory.delete(written[-1 - n].id)
            except OpenProtoError as error:
                return error.message
            await asyncio.sleep(0.002)
        return ""

    async with store.client(HashEmbedder(16, "old")) as memory, asyncio.timeout(60), asyncio.TaskGroup() as group:
        writing = group.create_task(write(memory))
        await asyncio.sleep(0.05)
        await store.reindex(HashEmbedder(24, "new"))
    assert "'old'" in writing.result()
    await check_whole(store, HashEmbedder(24, "new"))


async def test_what_was_stopped_leaves_the_store_in_use_and_goes_on_where_it_was(store: Any) -> None:
    await fill(store, HashEmbedder(16, "old"), SOME)
    await stop_after_the_first_batch(store, HashEmbedder(24, "new"))
    await check_usable(store, HashEmbedder(16, "old"))
    again = HashEmbedder(24, "new")
    progress = await store.reindex(again)
    assert (len(again.texts), progress[0].done) == (11, SOME + 1)
    await check_whole(store, again)


@pytest.mark.parametrize("abandoned", [HashEmbedder(24, "other"), HashEmbedder(12, "new")], ids=["model", "length"])
async def test_vectors_that_were_gathered_for_another_model_are_not_used(store: Any, abandoned: HashEmbedder) -> None:
    await fill(store, HashEmbedder(16, "old"), SOME)
    await stop_after_the_first_batch(store, abandoned)
    wanted = HashEmbedder(24, "new")
    await store.reindex(wanted)
    assert len(wanted.texts) == SOME
    await check_whole(store, wanted)


async def test_of_two_at_once_the_later_one_wins_and_nothing_is_mixed(store: Any) -> None:
    await fill(store, HashEmbedder(16, "old"), SOME)
    slow = HashEmbedder(24, "slow")
    running = asyncio.create_task(store.reindex(slow, held_after_a_batch(slow)))
    await until(lambda: not slow.go.is_set() and slow.busy.is_set())
    later = HashEmbedder(24, "later")
    await store.reindex(later)
    slow.go.set()
    await asyncio.wait([running], timeout=20)
    assert isinstance(running.exception(), OpenProtoError)
    await check_whole(store, later)
    twice = await asyncio.gather(*(store.reindex(HashEmbedder(8, "twice")) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(outcome, list | OpenProtoError) for outcome in twice)
    await store.reindex(HashEmbedder(8, "twice"))
    await check_whole(store, HashEmbedder(8, "twice"))


async def test_an_embedder_that_fails_in_the_middle_leaves_the_store_as_it_was(store: Any) -> None:
    await fill(store, HashEmbedder(16, "old"), SOME)
    failing = HashEmbedder(24, "new")
    failing.refuses = f"number{SOME - 1}"
    with pytest.raises(PayloadTooLargeError) as caught:
        await store.reindex(failing)
    assert "number" not in caught.value.message
    await check_usable(store, HashEmbedder(16, "old"))


KILLED = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from toy_embedders import HashEmbedder
import openproto_adapters.postgres, openproto_adapters.sqlite
name, place, *schema = sys.argv[2:]
embedder = HashEmbedder(24, "new")
def report(progress):
    embedder.go.clear()
    print(progress.done, flush=True)
provider = getattr(getattr(openproto_adapters, name.lower()), name)
options = {"schema": schema[0]} if schema else {}
asyncio.run(provider(place, embedder=embedder, **options).reindex(report))
"""


async def test_what_was_killed_goes_on_where_it_was(store: Any, start_python: Any) -> None:
    await fill(store, HashEmbedder(16, "old"), SOME)
    process = start_python(KILLED, Path(__file__).parents[1], *store.arguments())
    assert await asyncio.to_thread(process.stdout.readline) == f"{BATCH}\n"
    process.kill()
    await asyncio.to_thread(process.wait)
    await check_usable(store, HashEmbedder(16, "old"))
    again = HashEmbedder(24, "new")
    await store.reindex(again)
    assert len(again.texts) == 11
    await check_whole(store, again)
