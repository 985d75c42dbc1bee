"""Re-embedding: online, resumable, and over when every memory has the new model's vector."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Sequence
from typing import Any

import pytest
from openproto_adapters.postgres import Postgres
from postgres_tools import LONG, HashEmbedder, MakeClient, sql, until, value

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, ProviderError
from openproto.provider import ReindexProgress

WORDS = "tea coffee walks dog cat berlin paris piano violin novels chess swims".split()


class SlowEmbedder(HashEmbedder):
    """Waits in each batch, and counts what it embedded."""

    def __init__(self, dim: int, model: str, seconds: float = 0.0) -> None:
        super().__init__(dim, model)
        self.seconds = seconds
        self.texts = 0

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:  # type: ignore[override]
        await asyncio.sleep(self.seconds)
        self.texts += len(texts)
        return super().embed(texts)


def content(n: int) -> str:
    return f"{WORDS[n % 12]} {WORDS[n * 7 % 12]} number{n}"


async def fill(memory: AsyncMemory, count: int, user: str = "ada") -> None:
    outcomes = await memory.add_many([{"content": content(n), "user_id": user} for n in range(count)])
    assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes)


async def reindex(options: dict[str, Any], embedder: Any) -> list[ReindexProgress]:
    progress: list[ReindexProgress] = []
    provider = Postgres(**{**options, "embedder": embedder})
    try:
        await provider.reindex(progress.append)
    finally:
        await provider.close()
    return progress


async def check_whole(make: MakeClient, dsn: str, schema: str, embedder: Any) -> None:
    """Every record has the vector of its own content, by the new model, and nothing of the old is left."""
    model, dim = (embedder.model, embedder.dim) if embedder != "none" else (None, None)
    assert tuple((await sql(dsn, f"SELECT model, dim FROM {schema}.store"))[0]) == (model, dim)
    lacking = f"SELECT count(*) FROM {schema}.memories WHERE (embedding IS NULL) <> {str(model is None).lower()}"
    assert await value(dsn, lacking) == 0
    indexes = f"SELECT count(*) FROM pg_index WHERE indrelid = '{schema}.memories'::regclass AND NOT indisvalid"
    assert await value(dsn, indexes) == 0
    async with make(embedder=embedder) as memory:
        async for record in memory.iter("ada"):
            assert record.embedding_model == model
        for n in (0, 5, 11):
            best = (await memory.search(content(n), "ada"))[0]
            assert best.memory.content == content(n)
            assert best.score == pytest.approx(1.0, abs=2e-3)


STEPS = [
    (HashEmbedder(16, "old"), HashEmbedder(16, "new")),
    (HashEmbedder(256, "old"), HashEmbedder(1024, "new")),
    (HashEmbedder(1024, "old"), HashEmbedder(64, "new")),
    ("none", HashEmbedder(16, "new")),
    (HashEmbedder(16, "old"), "none"),
    ("none", HashEmbedder(600, "new")),
]


@pytest.mark.parametrize(
    ("before", "after"), STEPS, ids=["same-dim", "to-long", "to-short", "from-text", "to-text", "text-to-long"]
)
async def test_after_it_every_memory_has_the_new_models_vector(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str, before: Any, after: Any
) -> None:
    async with make(embedder=before) as memory:
        await fill(memory, 600)
        await memory.update((await memory.list("ada")).items[0].id, scope="changed")
        kept = [record async for record in memory.iter("ada")]
    progress = await reindex(options, after)
    if after != "none":
        done = [step.done for step in progress]
        assert done == sorted(done)
        assert progress[-1] == ReindexProgress(600, 600)
    await check_whole(make, dsn, schema, after)
    async with make(embedder=after) as memory:
        now = [record async for record in memory.iter("ada")]
    plain = {"embedding_model"}
    assert [r.model_dump(exclude=plain) for r in now] == [r.model_dump(exclude=plain) for r in kept]
    with pytest.raises(ProviderError, match="openproto reindex"):
        async with make(embedder=before):
            pass


async def test_repeating_it_changes_nothing(make: MakeClient, options: dict[str, Any], dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 50)
    for _ in range(2):
        await reindex(options, HashEmbedder(16, "new"))
        await check_whole(make, dsn, schema, HashEmbedder(16, "new"))


async def test_an_empty_store_changes_its_model_too(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    async with make(embedder=HashEmbedder(16, "old")):
        pass
    await reindex(options, HashEmbedder(8, "new"))
    async with make(embedder=HashEmbedder(8, "new")) as memory:
        await fill(memory, 12)
    await check_whole(make, dsn, schema, HashEmbedder(8, "new"))


async def test_what_is_written_meanwhile_is_neither_lost_nor_stale(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    new = SlowEmbedder(24, "new", 0.02)
    texts: dict[str, str] = {}
    async with make(embedder=HashEmbedder(16, "old"), retries=0) as memory:
        await fill(memory, 900)
        victims = [record async for record in memory.iter("ada")]

        async def write(n: int) -> None:
            added = await memory.add(f"meanwhile {n} fresh{n}", user_id="ada")
            texts[added.id] = added.content
            if n < 400:
                changed = await memory.update(victims[n].id, content=f"changed {n} altered{n}")
                texts[changed.id] = changed.content
                await memory.delete(victims[-1 - n].id)
            assert await memory.search("tea", "ada")

        async def work() -> str:
            for n in itertools.count():
                try:
                    await write(n)
                except OpenProtoError as error:
                    return error.message
                await asyncio.sleep(0.002)
            return ""

        working = asyncio.create_task(work())
        await asyncio.sleep(0.05)
        try:
            async with asyncio.timeout(15):  # however long they go on writing
                await reindex(options, new)
                message = await working
        finally:
            working.cancel()
        assert "'old'" in message
        assert "'new'" in message
    assert len(texts) > 10
    fresh = HashEmbedder(24, "new")
    async with make(embedder=fresh) as memory:
        for id, text in texts.items():
            assert (await memory.get(id)).content == text
            best = (await memory.search(text, "ada"))[0]
            assert best.memory.id == id
            assert best.score == pytest.approx(1.0, abs=2e-3)
    assert await value(dsn, f"SELECT count(*) FROM {schema}.memories WHERE embedding IS NULL") == 0


async def test_cancelled_it_goes_on_where_it_was(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 1_000)
    slow = SlowEmbedder(24, "new", 0.1)
    run = asyncio.create_task(reindex(options, slow))

    async def some() -> bool:
        return await value(dsn, f"SELECT count(*) > 200 FROM {schema}.memories WHERE next_embedding IS NOT NULL")

    await until(some, "some new vectors")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    done = await value(dsn, f"SELECT count(*) FROM {schema}.memories WHERE next_embedding IS NOT NULL")
    async with make(embedder=HashEmbedder(16, "old")) as memory:  # the store still is the old model's
        assert (await memory.search(content(3), "ada"))[0].memory.content == content(3)
    again = SlowEmbedder(24, "new")
    progress = await reindex(options, again)
    assert again.texts == 1_000 - done
    assert progress[0].done > done
    await check_whole(make, dsn, schema, HashEmbedder(24, "new"))


async def test_stopped_for_another_model_nothing_of_the_first_is_used(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 1_000)
    run = asyncio.create_task(reindex(options, SlowEmbedder(24, "abandoned", 0.1)))

    async def some() -> bool:
        return await value(dsn, f"SELECT count(*) > 200 FROM {schema}.memories WHERE next_embedding IS NOT NULL")

    await until(some, "some vectors")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    await reindex(options, HashEmbedder(24, "wanted"))
    await check_whole(make, dsn, schema, HashEmbedder(24, "wanted"))


KILLED = """
import asyncio, sys, time
sys.path.insert(0, sys.argv[3])
from postgres_tools import HashEmbedder
from openproto_adapters.postgres import Postgres

class Slow(HashEmbedder):
    def embed(self, texts):
        time.sleep(0.1)
        return super().embed(texts)

def report(progress):
    print(progress.done, flush=True)

asyncio.run(Postgres(sys.argv[1], schema=sys.argv[2], embedder=Slow(24, "new")).reindex(report))
"""


async def test_killed_it_goes_on_where_it_was(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str, start_python, request: pytest.FixtureRequest
) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 1_500)
    process = start_python(KILLED, dsn, schema, str(request.path.parent))
    assert int(await asyncio.to_thread(process.stdout.readline)) > 0
    assert int(await asyncio.to_thread(process.stdout.readline)) > 0
    process.send_signal(signal.SIGKILL)
    await asyncio.to_thread(process.wait, LONG)
    done = await value(dsn, f"SELECT count(*) FROM {schema}.memories WHERE next_embedding IS NOT NULL")
    assert done > 0
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await memory.add("after the kill", user_id="ada")
    again = SlowEmbedder(24, "new")
    await reindex(options, again)
    assert again.texts <= 1_501 - done
    await check_whole(make, dsn, schema, HashEmbedder(24, "new"))


async def test_two_at_once_end_in_one_model(make: MakeClient, options: dict[str, Any], dsn: str, schema: str) -> None:
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 300)
    runs = [reindex(options, HashEmbedder(24, "new")) for _ in range(2)]
    outcomes = await asyncio.gather(*runs, return_exceptions=True)
    for outcome in outcomes:
        assert not isinstance(outcome, BaseException) or isinstance(outcome, OpenProtoError), outcome
    if any(isinstance(outcome, BaseException) for outcome in outcomes):
        await reindex(options, HashEmbedder(24, "new"))
    await check_whole(make, dsn, schema, HashEmbedder(24, "new"))


async def test_an_embedder_that_fails_leaves_the_store_as_it_was(
    make: MakeClient, options: dict[str, Any], dsn: str, schema: str
) -> None:
    class Failing(HashEmbedder):
        def embed(self, texts: Sequence[str]) -> list[list[float]]:
            if any("number400" in text for text in texts):
                raise OSError("the model is gone")
            return super().embed(texts)

    async with make(embedder=HashEmbedder(16, "old")) as memory:
        await fill(memory, 600)
    with pytest.raises(ProviderError) as caught:
        await reindex(options, Failing(24, "new"))
    assert "number400" not in caught.value.message
    async with make(embedder=HashEmbedder(16, "old")) as memory:
        assert (await memory.search(content(3), "ada"))[0].memory.content == content(3)
    await reindex(options, HashEmbedder(24, "new"))
    await check_whole(make, dsn, schema, HashEmbedder(24, "new"))
