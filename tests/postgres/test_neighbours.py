"""Turns are found together with those beside them, on both stores alike; words of older rules are made anew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from postgres_tools import HashEmbedder, MakeClient

from openproto import AsyncMemory
from openproto.stores.ranking import LENT


def turn(content: str, conversation: str, number: Any) -> dict[str, Any]:
    return {"content": content, "user_id": "ada", "x_openproto": {"conversation": conversation, "turn": number}}


async def scores(memory: AsyncMemory, query: str, **filters: Any) -> dict[str, float]:
    return {found.memory.content: found.score for found in await memory.search(query, "ada", limit=100, **filters)}


async def test_a_hit_lends_to_the_turns_beside_it_and_to_nothing_else(make: MakeClient, tmp_path: Path) -> None:
    items = [
        turn("shall we buy cheese", "one", 3),
        turn("yes two please", "one", 4),
        turn("what about wine", "one", 2),
        turn("no thanks", "one", 6),
        turn("elsewhere and earlier", "two", 2),
        turn("of no number", "one", "4"),
        {"content": "a fact", "user_id": "ada"},
    ]
    async with (
        make(embedder="none") as postgres,
        AsyncMemory("sqlite", path=tmp_path / "m.db", embedder="none") as sqlite,
    ):
        for memory in (postgres, sqlite):
            await memory.add_many(items)
            assert await scores(memory, "cheese") == pytest.approx(
                {"shall we buy cheese": 1.0, "yes two please": LENT, "what about wine": LENT}
            )
            (first, second) = await memory.search("no thanks", "ada")
            assert (first.memory.content, second.memory.content) == ("no thanks", "yes two please")


@pytest.mark.parametrize("embedder", ["none", HashEmbedder(32, center_query=True)], ids=["words", "vectors"])
async def test_both_stores_lend_alike(make: MakeClient, tmp_path: Path, embedder: Any) -> None:
    rng = random.Random(5)
    words = [f"word{n}" for n in range(40)]
    items = [
        {
            **turn(f"{' '.join(rng.sample(words, 4))} of {n}", rng.choice("abc"), rng.randrange(60)),
            "scope": rng.choice("st"),
        }
        for n in range(120)
    ]
    async with (
        make(embedder=embedder) as postgres,
        AsyncMemory("sqlite", path=tmp_path / "m.db", embedder=embedder) as sqlite,
    ):
        for memory in (postgres, sqlite):
            await memory.add_many(items)
        for _ in range(15):
            query, scope = " ".join(rng.sample(words, 2)), rng.choice([None, "s"])
            one, two = [await scores(memory, query, scope=scope) for memory in (postgres, sqlite)]
            assert all(0 < score <= 1 for score in one.values())
            assert sorted(one.values()) == pytest.approx(sorted(two.values()), abs=3e-3)


async def test_words_of_other_rules_are_made_anew(make: MakeClient) -> None:
    async with make(embedder="none") as memory:
        await memory.add_many([{"content": f"पिछले दिन {n}", "user_id": "ada"} for n in range(300)])
        provider: Any = memory._session.provider
        await provider._fetch("UPDATE {schema}.store SET rules = 1")
        await provider._fetch("UPDATE {schema}.memories SET words = '{1:1}/1000000000'")
        assert await memory.search("दिन", "ada") == []
        renewing: Any = provider.fresh()
        await renewing.reindex(lambda progress: None)
        await renewing.close()
        assert len(await memory.search("दिन", "ada", limit=100)) == 100
