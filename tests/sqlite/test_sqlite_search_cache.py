"""What searches keep of a user is never stale, never larger than was asked for, and ranks as the formula does."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlite_tools import memory as sqlite
from sqlite_tools import provider_of, rows
from toy_embedders import HashEmbedder

from openproto import AsyncMemory
from openproto.models import Place
from openproto.stores import ranking, ranking_arrays

WORDS = [f"word{n}" for n in range(30)]
NOW = datetime.now(UTC)
ASKED: list[dict[str, Any]] = [
    {"limit": 100},
    {"limit": 100, "scope": "s"},
    {"limit": 100, "tag": "a"},
    {"limit": 100, "as_of": NOW + timedelta(days=10)},
    {"limit": 3, "min_score": 0.3},
]


def item(rng: random.Random) -> dict[str, Any]:
    return {
        "content": " ".join(rng.sample(WORDS, 5)),
        "user_id": "ada",
        "scope": rng.choice([None, "s", "s/t", "sx"]),
        "tags": rng.choice([[], ["a"], ["a", "b"]]),
        "valid_to": rng.choice([None, None, NOW + timedelta(days=9)]),
        "x_openproto": {"conversation": rng.choice("ab"), "turn": rng.randrange(40)} if rng.random() < 0.5 else {},
    }


async def change(memory: AsyncMemory, rng: random.Random, kind: int) -> None:
    pick = rng.choice([record.id async for record in memory.iter("ada")])
    new = item(rng)
    match kind:
        case 0:
            await memory.add_many([item(rng) for _ in range(rng.choice([1, 2, 600]))])
        case 1:
            name = rng.choice(["content", "scope", "tags", "valid_to", "x_openproto"])
            await memory.update(pick, **{name: new[name]})
        case 2:
            await memory.add(**{**new, "supersedes": [pick]})
        case 3:
            await memory.delete(pick)
        case 4:
            gone = await memory.get(pick)
            await memory.delete(pick)
            await memory.add("of somebody else", user_id="bob")  # who is given the number, where it was the last one
            await memory.restore([gone])
        case _:
            await memory.delete_all("ada", scope="s")
            await memory.add(**new)


async def test_each_search_sees_what_another_client_wrote_before_it(path: Path) -> None:
    rng, embedder = random.Random(4), HashEmbedder(16, center_query=True)
    async with AsyncExitStack() as stack:
        writer, keeping, without, small = [
            await stack.enter_async_context(sqlite(path, embedder, search_cache_mb=size)) for size in (1, 256, 0, 0)
        ]
        provider_of(small)._search_cache_bytes = 40_000  # the columns of a few hundred memories, not their vectors
        await writer.add_many([item(rng) for _ in range(30)])
        for kind in rng.sample([0, 1, 1, 1, 2, 3, 4, 5] * 3, k=24):
            await change(writer, rng, kind)
            query = " ".join(rng.sample(WORDS, 3))
            for wanted in ASKED:
                found = [await memory.search(query, "ada", **wanted) for memory in (keeping, without, small)]
                assert found[0] == found[1] == found[2]


async def test_the_cache_forgets_whoever_was_searched_for_longest_ago(path: Path) -> None:
    async with sqlite(path, HashEmbedder(64), search_cache_mb=1) as memory:
        people = [f"user{n}" for n in range(12)]
        await memory.add_many([{"content": f"note {n}", "user_id": user} for user in people for n in range(1_000)])
        for user in people:
            assert len(await memory.search("note 7", user)) == 10
        cache = provider_of(memory)._search_cache
        assert cache is not None
        users = cache._users
        assert [user for user, _, _ in users] == people[-len(users) :]
        assert 1 < len(users) < 12
        assert sum(kept.bytes for kept in users.values()) <= 1_000_000
    assert rows(path, "SELECT count(*) FROM changes") == [(12 * 500,)]


@pytest.mark.parametrize("seed", range(8))
def test_the_arrays_are_the_formula_to_the_last_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, terms, variants = 400, int(rng.integers(0, 6)), int(rng.integers(0, 6))
    postings, others = (
        [np.flatnonzero(rng.random(n) < rng.random() ** 3) for _ in range(k)] for k in (terms, variants)
    )
    of = [int(rng.integers(-1, terms)) for _ in others]
    shares = ranking.coverage(n, [p.tolist() for p in postings], [p.tolist() for p in others], of)
    covered = ranking_arrays.coverage(n, n, postings, others, of)
    assert covered.tolist() == [shares.get(k, 0.0) for k in range(n)]

    halves = rng.standard_normal((n, 24)).astype(np.float16) / np.float16(5)
    query = (rng.standard_normal(24) / 5).astype(np.float32)
    cosines = ranking_arrays.cosines(halves, query)
    assert cosines == pytest.approx(halves.astype(np.float32) @ query, abs=1e-6)
    has_vector = rng.random(n) < 0.9
    scores = ranking_arrays.fuse(cosines, has_vector, covered, 1.6)
    near = [ranking.nearness(float(cosine)) if has else 0.0 for cosine, has in zip(cosines, has_vector, strict=True)]
    assert scores.tolist() == [(near[k] + 1.6 * shares.get(k, 0.0)) / (1 + 1.6) for k in range(n)]

    scores[rng.random(n) < 0.2] = -1.0  # not eligible
    conversation, turn = (rng.integers(*bounds, n).astype(np.int32) for bounds in ((-1, 4), (0, 60)))
    taking_part = [k for k in reversed(range(n)) if scores[k] >= 0]
    places = {k: Place(str(conversation[k]), int(turn[k])) for k in taking_part if conversation[k] >= 0}
    lent = ranking.lend({k: float(scores[k]) for k in taking_part}, places)
    ranking_arrays.Turns(conversation, turn).lend(scores)
    assert {k: float(scores[k]) for k in taking_part} == lent
    best = sorted(taking_part, key=lambda k: (lent[k], k), reverse=True)[:10]
    assert ranking_arrays.best(scores, 10).tolist() == best
