"""A store and its model: adopted once, never mixed with another, and switched by re-embedding, online and resumable."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from unittest.mock import Mock

import pytest
from openproto_adapters.sqlite.reindexing import BATCH
from toy_embedders import HashEmbedder
from waiting import cancelled, until

from openproto import AsyncMemory, MemoryRecord, OpenProtoError, PayloadTooLargeError, ProviderError
from openproto.provider import ReindexProgress
from openproto.stores import indexer

OLD = HashEmbedder(16, "old")
WORDS = "tea coffee walks dog cat berlin paris piano violin novels chess swims".split()
SOME = BATCH + 10


def content(n: int) -> str:
    return f"{WORDS[n % 12]} {WORDS[n * 7 % 12]} number{n}"


async def add_one(store: Any, embedder: Any) -> None:
    async with store.client(embedder) as client:
        await client.add("likes tea", user_id="ada")


@pytest.mark.parametrize(
    ("first", "second", "names"),
    [
        (HashEmbedder(4, "one"), HashEmbedder(4, "two"), ["'one' (4 dimensions)", "'two' (4 dimensions)"]),
        (HashEmbedder(4, "one"), HashEmbedder(5, "one"), ["'one' (4 dimensions)", "'one' (5 dimensions)"]),
        (HashEmbedder(4, "one"), "none", ["'one' (4 dimensions)", "text alone"]),
        ("none", HashEmbedder(4, "two"), ["text alone", "'two' (4 dimensions)"]),
    ],
)
async def test_another_embedder_is_refused_with_a_remedy(store: Any, first: Any, second: Any, names: list[str]) -> None:
    await add_one(store, first)
    with pytest.raises(ProviderError) as caught:
        async with store.client(second):
            pytest.fail("the store was opened")
    assert all(name in caught.value.message for name in [*names, "openproto reindex"])
    assert "tea" not in caught.value.message
    assert await store.rows("SELECT count(*) FROM memories") == [(1,)]
    if second != "none":
        await until(lambda: second.closed == second.opened > 0)  # it is released


async def test_a_store_without_memories_adopts_the_first_model_it_meets_and_capabilities_say_so(store: Any) -> None:
    for embedder, vectors in (("none", False), (HashEmbedder(16, "first"), True)):
        async with store.client(embedder) as client:
            await client.delete((await client.add("gone", user_id="ada")).id)
            declared = await client.capabilities()
        assert (declared.features.vector_search, declared.features.keyword_search) == (vectors, True)
        assert declared.x_openproto.support["vector_search"] == ("native" if vectors else "none")
    assert await store.rows("SELECT model, dim FROM store") == [("first", 16)]


async def test_of_clients_with_different_models_at_once_one_wins(store: Any) -> None:
    async def open_and_add(n: int) -> str:
        try:
            await add_one(store, HashEmbedder(1024, f"model {n}"))
        except ProviderError as error:
            return error.message
        return "added"

    async with store.client():
        pass  # makes the tables, so that the race is for the model alone
    outcomes = await asyncio.gather(*(open_and_add(n) for n in range(6)))
    assert outcomes.count("added") == 1
    assert all("openproto reindex" in outcome for outcome in outcomes if outcome != "added")


async def test_a_store_of_texts_stays_so_when_vectors_come_later(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await add_one(store, "none")
    local = HashEmbedder(model="local")
    monkeypatch.setattr(indexer, "resolve_embedder", lambda spec: local)
    async with store.client("auto") as client:
        await client.add("drinks green tea", user_id="ada")
        found = await client.search("teas", "ada")
        assert [hit.memory.embedding_model for hit in found] == [None, None]
        assert 0 < found[1].score <= found[0].score <= 1
        assert await client.search("bicycle", "ada") == await client.search("?!", "ada") == []
    assert (local.opened, local.closed) == (1, 1)


async def test_a_text_that_cannot_be_embedded_fails_alone_and_is_not_stored(store: Any) -> None:
    embedder = HashEmbedder()
    embedder.refuses = "bad"
    async with store.client(embedder) as client:
        found = await client.add_many([{"content": text, "user_id": "ada"} for text in ("good", "bad", "fine")])
        assert [type(outcome) for outcome in found] == [MemoryRecord, PayloadTooLargeError, MemoryRecord]
        with pytest.raises(PayloadTooLargeError, match="refuses this text"):
            await client.add("bad", user_id="ada")
        with pytest.raises(PayloadTooLargeError):
            await client.update(found[0].id, content="bad")
        assert [record.content async for record in client.iter("ada")] == ["fine", "good"]


async def test_an_embedder_that_cannot_be_loaded_frees_the_store(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = HashEmbedder()
    monkeypatch.setattr(broken, "open", Mock(side_effect=ProviderError("the weights are missing")))
    with pytest.raises(ProviderError, match="the weights are missing"):
        await add_one(store, broken)
    await add_one(store, HashEmbedder())


async def test_an_add_that_is_cancelled_while_it_is_embedded_stores_nothing(store: Any) -> None:
    embedder = HashEmbedder()
    async with store.client(embedder) as client:
        embedder.go.clear()
        adding = asyncio.create_task(client.add("tea", user_id="ada"))
        await until(embedder.busy.is_set)
        assert await cancelled(adding)
        embedder.go.set()
        await client.add("milk", user_id="ada")
    assert await store.rows("SELECT content FROM memories") == [("milk",)]


@pytest.mark.parametrize("dim", [16, 8], ids=["same dimension", "other dimension"])
async def test_a_client_of_the_model_before_a_switch_is_refused_and_writes_nothing(store: Any, dim: int) -> None:
    async with store.client(HashEmbedder(16, "old")) as stale:
        record = await stale.add("likes tea", user_id="ada")
        await stale.search("tea", "ada")
        await store.reindex(HashEmbedder(dim, "new"))
        for call in (
            stale.add("likes coffee", user_id="ada"),
            stale.update(record.id, content="likes coffee"),
            stale.put("likes coffee", user_id="ada", key="k"),
            stale.restore([record]),
            stale.search("tea", "ada"),
            stale.context("tea", "ada"),
        ):
            with pytest.raises(ProviderError, match=rf"'new' \({dim} dimensions\).*'old'.*openproto reindex"):
                await call
        (outcome,) = await stale.add_many([{"content": "likes coffee", "user_id": "ada"}])
        assert isinstance(outcome, ProviderError)
        assert [kept.content async for kept in stale.iter("ada")] == ["likes tea"]  # reading without vectors works
    async with store.client(HashEmbedder(dim, "new")) as client:
        assert (await client.add("likes coffee", user_id="ada")).embedding_model == "new"


async def fill(store: Any, embedder: Any, count: int) -> list[MemoryRecord]:
    async with store.client(embedder) as memory:
        await memory.add_many([{"content": content(n), "user_id": "ada"} for n in range(count)])
        return [record async for record in memory.iter("ada")]


async def check_whole(store: Any, embedder: Any, every: int = 37) -> list[MemoryRecord]:
    """Check that each record has the vector of its own content by the model, and nothing else; return the records."""
    model, dim = (embedder.model, embedder.dim) if embedder != "none" else (None, None)
    assert await store.rows("SELECT model, dim, next_model FROM store") == [(model, dim, None)]
    async with store.client(embedder) as memory:
        records = [record async for record in memory.iter("ada")]
        for record in records[::every]:
            assert record.embedding_model == model
            best = (await memory.search(record.content, "ada"))[0]
            assert (best.memory.content, best.score) == (record.content, pytest.approx(1.0, abs=2e-3))
    return records


async def check_usable(store: Any) -> None:
    """Check that the store is of the model it had, and is written and searched."""
    async with store.client(OLD) as memory:
        assert (await memory.search(content(3), "ada"))[0].memory.content == content(3)
        await memory.add("meanwhile", user_id="ada")


def embedding_its_second_batch(store: Any, embedder: HashEmbedder) -> asyncio.Task[Any]:
    """Start a re-embedding that is held up in its second batch."""

    def report(_: ReindexProgress) -> None:
        embedder.busy.clear()
        embedder.go.clear()

    return asyncio.create_task(store.reindex(embedder, report))


async def stop_after_the_first_batch(store: Any, embedder: HashEmbedder) -> None:
    running = embedding_its_second_batch(store, embedder)
    await until(lambda: not embedder.go.is_set() and embedder.busy.is_set())
    running.cancel()
    await asyncio.sleep(0)
    embedder.go.set()  # closing waits for the embedder
    await asyncio.wait([running])


@pytest.mark.parametrize(
    ("before", "after", "count"),
    [
        (OLD, HashEmbedder(16, "new"), 600),
        (HashEmbedder(256, "old"), HashEmbedder(1024, "new"), BATCH),
        (HashEmbedder(1024, "old"), HashEmbedder(64, "new"), BATCH + 1),
        ("none", HashEmbedder(600, "new"), 40),
        (OLD, "none", 40),
        (OLD, HashEmbedder(8, "new"), 0),
    ],
    ids=["same-dim", "to-long", "to-short", "from-text", "to-text", "empty"],
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
    await store.reindex(after)  # again changes nothing
    await check_whole(store, after)


async def test_what_is_written_meanwhile_is_neither_lost_nor_stale(store: Any) -> None:
    first, second, third, *_ = await fill(store, OLD, 20)
    new = HashEmbedder(24, "new")
    new.go.clear()
    running = asyncio.create_task(store.reindex(new))
    async with store.client(OLD) as memory:
        await until(new.busy.is_set)
        await memory.add("added meanwhile", user_id="ada")
        await memory.update(first.id, content="changed meanwhile")
        await memory.put("put meanwhile", user_id="ada", key="k")
        await memory.delete(second.id)
        assert (await memory.search(third.content, "ada"))[0].memory.id == third.id
        new.go.set()
        await running
    assert {"added meanwhile", "changed meanwhile", "put meanwhile"} <= set(new.texts)
    assert len(await check_whole(store, new, every=1)) == 21


async def test_a_store_under_constant_writes_is_re_embedded(store: Any) -> None:
    await fill(store, OLD, SOME)

    async def write(memory: AsyncMemory) -> str:
        try:
            for n in itertools.count():
                await memory.add(f"meanwhile {n} fresh{n}", user_id="ada")
        except OpenProtoError as error:
            return error.message
        return ""

    async with store.client(OLD) as memory, asyncio.timeout(60), asyncio.TaskGroup() as group:
        writing = group.create_task(write(memory))
        await store.reindex(HashEmbedder(24, "new"))
    assert "'old'" in writing.result()
    await check_whole(store, HashEmbedder(24, "new"))


async def test_what_was_stopped_leaves_the_store_in_use_and_goes_on_where_it_was(store: Any) -> None:
    await fill(store, OLD, SOME)
    await stop_after_the_first_batch(store, HashEmbedder(24, "new"))
    await check_usable(store)
    again = HashEmbedder(24, "new")
    progress = await store.reindex(again)
    assert (len(again.texts), progress[0].done) == (11, SOME + 1)
    await check_whole(store, again)


@pytest.mark.parametrize("abandoned", [HashEmbedder(24, "other"), HashEmbedder(12, "new")], ids=["model", "length"])
async def test_vectors_that_were_gathered_for_another_model_are_not_used(store: Any, abandoned: HashEmbedder) -> None:
    await fill(store, OLD, SOME)
    await stop_after_the_first_batch(store, abandoned)
    wanted = HashEmbedder(24, "new")
    await store.reindex(wanted)
    assert len(wanted.texts) == SOME
    await check_whole(store, wanted)


async def test_of_two_at_once_the_later_one_wins_and_nothing_is_mixed(store: Any) -> None:
    await fill(store, OLD, SOME)
    slow, later = HashEmbedder(24, "slow"), HashEmbedder(24, "later")
    running = embedding_its_second_batch(store, slow)
    await until(lambda: not slow.go.is_set() and slow.busy.is_set())
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
    await fill(store, OLD, SOME)
    failing = HashEmbedder(24, "new")
    failing.refuses = f"number{SOME - 1}"
    with pytest.raises(PayloadTooLargeError) as caught:
        await store.reindex(failing)
    assert "number" not in caught.value.message
    await check_usable(store)
