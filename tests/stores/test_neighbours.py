"""Turns are found together with those next to them; words of older rules are renewed."""

from __future__ import annotations

import random
from typing import Any

import pytest
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, ProviderError
from openproto.stores.ranking import LENT

OLDER_WORDS = "UPDATE memories SET words = '{1:1}/1000000000'"


def turn(content: str, conversation: str, number: Any) -> dict[str, Any]:
    return {"content": content, "user_id": "ada", "x_openproto": {"conversation": conversation, "turn": number}}


async def scores(memory: AsyncMemory, query: str, **filters: Any) -> dict[str, float]:
    return {found.memory.content: found.score for found in await memory.search(query, "ada", limit=100, **filters)}


async def test_a_hit_lends_to_the_turns_next_to_it_and_to_nothing_else(memory: AsyncMemory) -> None:
    await memory.add_many(
        [
            turn("shall we buy cheese", "one", 3),
            turn("yes two please", "one", 4),
            turn("what about wine", "one", 2),
            turn("no thanks", "one", 6),
            turn("elsewhere and earlier", "two", 2),
            turn("of no number", "one", "4"),
            {"content": "a fact", "user_id": "ada"},
        ]
    )
    assert await scores(memory, "cheese") == pytest.approx(
        {"shall we buy cheese": 1.0, "yes two please": LENT, "what about wine": LENT}
    )
    (first, second) = await memory.search("no thanks", "ada")
    assert (first.memory.content, second.memory.content) == ("no thanks", "yes two please")


@pytest.mark.parametrize("embedder", ["none", HashEmbedder(32, center_query=True)], ids=["words", "vectors"])
async def test_both_stores_lend_alike(stores: Any, embedder: Any) -> None:
    rng = random.Random(5)
    words = [f"word{n}" for n in range(40)]
    items = [
        {
            **turn(f"{' '.join(rng.sample(words, 4))} of {n}", rng.choice("abc"), rng.randrange(60)),
            "scope": rng.choice("st"),
        }
        for n in range(120)
    ]
    async with stores[0].client(embedder) as sqlite, stores[1].client(embedder) as postgres:
        for memory in (sqlite, postgres):
            await memory.add_many(items)
        for _ in range(15):
            query, scope = " ".join(rng.sample(words, 2)), rng.choice([None, "s"])
            one, two = [await scores(memory, query, scope=scope) for memory in (sqlite, postgres)]
            assert all(0 < score <= 1 for score in one.values())
            assert sorted(one.values()) == pytest.approx(sorted(two.values()), abs=3e-3)
            here, there = [
                {found.memory.content: found.parts for found in await memory.search(query, "ada", explain=True)}
                for memory in (sqlite, postgres)
            ]
            for content in here.keys() & there.keys():
                assert here[content] == pytest.approx(there[content], abs=3e-3)


async def test_words_of_other_rules_are_noticed_and_renewed(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with store.client() as memory:
        await memory.add_many([{"content": f"पिछले दिन {n}", "user_id": "ada"} for n in range(300)])
    assert await store.rows("SELECT rules FROM store") == [(2,)]
    await store.rows("UPDATE store SET rules = 1")
    older = "UPDATE words SET terms = 'older'" if store.name == "sqlite" else OLDER_WORDS
    await store.rows(older)
    async with store.client() as memory:
        assert await memory.search("day", "ada") == []
        with pytest.raises(ProviderError, match="run `openproto reindex`"):
            await memory.search("दिन", "ada")
    assert "run `openproto reindex`" in caplog.text
    await store.reindex("none")
    async with store.client() as memory:
        assert len(await memory.search("दिन", "ada", limit=100)) == 100
        assert await memory.search("दान", "ada") == []
