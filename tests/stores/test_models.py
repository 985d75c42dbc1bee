"""A store and its model: adopted once, remembered, and never mixed with the vectors of another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from toy_embedders import HashEmbedder
from waiting import until

from openproto import MemoryRecord, PayloadTooLargeError, ProviderError
from openproto.stores import indexer

BATCH = [{"content": text, "user_id": "ada"} for text in ("good", "bad", "fine")]


async def fill(store: Any, embedder: Any) -> None:
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
async def test_opening_with_another_embedder_names_both_and_the_remedy(
    store: Any, first: Any, second: Any, names: list[str]
) -> None:
    await fill(store, first)
    with pytest.raises(ProviderError) as caught:
        async with store.client(second):
            pytest.fail("the store was opened")
    assert all(name in caught.value.message for name in [*names, "openproto reindex"])
    assert "tea" not in caught.value.message
    assert await store.rows("SELECT count(*) FROM memories") == [(1,)]
    if second != "none":
        await until(lambda: second.closed == second.opened > 0)  # it is released


async def test_a_store_remembers_its_model_and_each_record_names_it(store: Any) -> None:
    for _ in range(2):
        async with store.client(HashEmbedder(16, "first")) as client:
            record = await client.add("alpha", user_id="ada")
            assert record.embedding_model == (await client.get(record.id)).embedding_model == "first"
            assert (await client.search("omega", "ada"))[0].memory.content == "alpha", "without a word in common"
    assert await store.rows("SELECT model, dim FROM store") == [("first", 16)]


async def test_a_store_without_memories_adopts_the_first_model_it_meets(store: Any) -> None:
    async with store.client() as client:
        await client.delete((await client.add("gone", user_id="ada")).id)
    await fill(store, HashEmbedder(16, "first"))
    assert await store.rows("SELECT model FROM store") == [("first",)]


async def test_of_clients_with_different_models_at_once_one_wins(store: Any) -> None:
    async def open_and_add(n: int) -> str:
        try:
            await fill(store, HashEmbedder(16, f"model {n}"))
        except ProviderError as error:
            return error.message
        return "added"

    async with store.client():
        pass  # makes the tables, so that the race is for the model alone
    outcomes = await asyncio.gather(*(open_and_add(n) for n in range(6)))
    assert outcomes.count("added") == 1
    assert all("openproto reindex" in outcome for outcome in outcomes if outcome != "added")


@pytest.mark.parametrize("embedder", [HashEmbedder(), "none", None])
async def test_capabilities_say_whether_there_are_vectors(store: Any, embedder: Any) -> None:
    async with store.client(embedder) as client:
        declared = await client.capabilities()
    vectors = isinstance(embedder, HashEmbedder)
    assert (declared.features.vector_search, declared.features.keyword_search) == (vectors, True)
    assert declared.x_openproto.support["vector_search"] == ("native" if vectors else "none")


async def test_a_store_of_texts_stays_so_when_a_local_embedder_is_installed_later(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(store, "none")
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
        found = await client.add_many(BATCH)
        assert [type(outcome) for outcome in found] == [MemoryRecord, PayloadTooLargeError, MemoryRecord]
        with pytest.raises(PayloadTooLargeError, match="refuses this text"):
            await client.add("bad", user_id="ada")
        with pytest.raises(PayloadTooLargeError):
            await client.update(found[0].id, content="bad")
        assert [record.content async for record in client.iter("ada")] == ["fine", "good"]


async def test_an_embedder_that_cannot_be_loaded_fails_the_opening_and_frees_the_store(
    store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise ProviderError("the weights are missing")

    broken = HashEmbedder()
    monkeypatch.setattr(broken, "open", missing)
    with pytest.raises(ProviderError, match="the weights are missing"):
        async with store.client(broken):
            pass
    await fill(store, HashEmbedder())


async def test_an_add_that_is_cancelled_while_it_is_embedded_stores_nothing(store: Any) -> None:
    embedder = HashEmbedder()
    async with store.client(embedder) as client:
        embedder.go.clear()
        adding = asyncio.create_task(client.add("tea", user_id="ada"))
        await until(embedder.busy.is_set)
        adding.cancel()
        await asyncio.wait([adding])
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
