"""Search is the formula of openproto/stores/ranking.py, worked out by brute force, and what it keeps is never stale."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from math import sqrt
from typing import Any

import numpy as np
import pytest
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, ProviderError
from openproto.models import Place, place_of
from openproto.stores import ranking, ranking_arrays
from openproto.stores.ranking import CENTERING_HALF_LIFE, CENTERING_SAMPLE, FLOOR, LENT, VARIANT_WEIGHT, coverage, idf
from openproto.stores.words import query_terms, terms

NOW = datetime.now(UTC)
WORDS = [f"{a}{b}" for a in "kalo timu seno rabi wexo pudi".split() for b in "na ter ling st om fy".split()]


def unit(vector: list[float]) -> list[float]:
    length = sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else vector


class Formula:
    """The parts of the score of each of Ada's records, straight from the formula, and searches held against them."""

    def __init__(self, memory: AsyncMemory, embedder: HashEmbedder | None) -> None:
        self.memory, self.embedder = memory, embedder

    async def read(self) -> None:
        self.mine = [record async for record in self.memory.iter("ada")]
        self.words = {record.id: frozenset(terms(record.content)) for record in self.mine}
        self.places = {record.id: place for record in self.mine if (place := place_of(record.extensions))}
        if self.embedder is not None:
            self.vectors = {r.id: unit(self.embedder.embed([r.content])[0]) for r in self.mine}

    def covered(self, query: str) -> dict[str, float]:
        words = {id: {*held} for id, held in self.words.items()}
        wanted = query_terms(query)
        for term, place in zip(wanted.variants, wanted.of, strict=True):
            for held in words.values():
                if place >= 0 and wanted.terms[place] in held:
                    held.add(term)
        df = {term: sum(term in held for held in words.values()) for term in (*wanted.terms, *wanted.variants)}
        weights = {term: idf(len(self.mine), df[term]) for term in wanted.terms}
        weights |= {term: VARIANT_WEIGHT * idf(len(self.mine), df[term]) for term in wanted.variants if df[term]}
        whole = sum(weights.values()) or 1.0
        return {
            id: sum(weight for term, weight in weights.items() if term in held) / whole for id, held in words.items()
        }

    def parts(self, query: str) -> dict[str, dict[str, float]]:
        covered = self.covered(query)
        if self.embedder is None:
            return {id: {"words": share} for id, share in covered.items()}
        asked = unit(self.embedder.embed([query])[0])
        if self.embedder.center_query and self.mine:
            newest = sorted(self.mine, key=lambda r: (r.created_at, r.id), reverse=True)[:CENTERING_SAMPLE]
            share = len(newest) / (len(newest) + CENTERING_HALF_LIFE)
            mean = [sum(column) / len(newest) for column in zip(*(self.vectors[r.id] for r in newest), strict=True)]
            asked = unit([x - share * m for x, m in zip(asked, mean, strict=True)])
        weight = self.embedder.text_weight
        cosines = {id: sum(x * y for x, y in zip(asked, v, strict=True)) for id, v in self.vectors.items()}
        near = {id: FLOOR + (1 - FLOOR if cosine > 0 else FLOOR) * cosine for id, cosine in cosines.items()}
        return {id: {"cosine": near[id] / (1 + weight), "words": weight * covered[id] / (1 + weight)} for id in near}

    async def check(self, query: str, limit: int = 10, min_score: float | None = None, **filters: Any) -> None:
        """The results are the best of what `list` holds, each with its score; ties may stand in any order."""
        moment = filters.pop("as_of", None)
        current = {**filters, "as_of": moment or datetime.now(UTC)}
        eligible = {record.id async for record in self.memory.iter("ada", **current)}
        asked: dict[str, Any] = {**filters, "limit": limit, "min_score": min_score, "as_of": moment, "explain": True}
        found = await self.memory.search(query, "ada", **asked)
        parts = self.parts(query)
        own = {record.id: sum(parts[record.id].values()) for record in self.mine if record.id in eligible}
        score = ranking.lend(own, self.places)
        floor = max(min_score or 0.0, 0.0)
        expected = sorted((value for value in score.values() if value > 0), reverse=True)
        got = [result.score for result in found]
        assert got == sorted(got, reverse=True)
        for result in found:
            id = result.memory.id
            assert id in eligible
            assert result.score == pytest.approx(score[id], abs=1e-3)
            assert result.parts == pytest.approx({**parts[id], "neighbours": score[id] - own[id]}, abs=3e-3)
            assert result.score >= floor
        surely = [value for value in expected if value > floor + 1e-3]
        perhaps = [value for value in expected if value >= floor - 1e-3]
        assert min(len(surely), limit) <= len(got) <= min(len(perhaps), limit)
        assert got == pytest.approx(perhaps[: len(got)], abs=2e-3)


async def fill(memory: AsyncMemory, rng: random.Random, count: int) -> None:
    """A random corpus: scopes, tags, validity, supersession, turns, and texts of one to more than 60 words."""
    ids: list[str] = []
    for n in range(count):
        size = rng.choice([1, 3, 6, 12, 90])
        common = rng.choices(WORDS, k=size)
        rare = [f"rare{rng.randrange(400)}" for _ in range(size // 2)]
        fields: dict[str, Any] = {
            "scope": rng.choice([None, "s", "s/t", "sx"]),
            "tags": rng.choice([None, ["a"], ["a", "b"]]),
        }
        if rng.random() < 0.3:
            fields["valid_from"] = NOW + timedelta(days=rng.randrange(-20, 5))
        if rng.random() < 0.3:
            fields["valid_to"] = NOW + timedelta(days=rng.randrange(6, 20))
        if rng.random() < 0.5:
            fields |= {"x_openproto": {"conversation": rng.choice("ab"), "turn": rng.randrange(count)}}
        if ids and rng.random() < 0.15:
            fields["supersedes"] = [rng.choice(ids)]
        ids.append((await memory.add(" ".join(common + rare), user_id="ada", **fields)).id)
        if n % 5 == 0:
            await memory.add(" ".join(common), user_id="bob")


@pytest.mark.parametrize(
    ("embedder", "count"),
    [
        (None, 60),
        (HashEmbedder(16), 60),
        (HashEmbedder(64, center_query=True, text_weight=1.6), 60),
        (HashEmbedder(24, center_query=True, text_weight=0.0), 15),
        (HashEmbedder(24, center_query=True, text_weight=0.2), 300),
        (HashEmbedder(600, center_query=True), 20),
    ],
    ids=["words", "vectors", "centred", "centred-few", "centred-many", "long-vectors"],
)
async def test_the_results_are_those_of_the_formula(store: Any, embedder: HashEmbedder | None, count: int) -> None:
    rng = random.Random(count)
    async with store.client(embedder) as memory:
        await fill(memory, rng, count)
        formula = Formula(memory, embedder)
        await formula.read()
        assert any(len(held) > 60 for held in formula.words.values())
        moments = [NOW - timedelta(days=3), NOW + timedelta(days=10), formula.mine[count // 2].created_at]
        for _ in range(25):
            words = rng.choices(WORDS, k=rng.choice([1, 2, 5, 25])) + [f"rare{rng.randrange(400)}"] * rng.randrange(2)
            await formula.check(
                " ".join(words),
                scope=rng.choice([None, None, "s", "s/t"]),
                tag=rng.choice([None, None, "a", "b"]),
                as_of=rng.choice([None, *moments]),
                min_score=rng.choice([None, 0.0, 0.2, 0.5]),
                limit=rng.choice([1, 5, 10, 100]),
            )


def test_no_memory_has_more_than_all_of_the_words() -> None:
    assert max(coverage(3, [range(1), range(2)], [range(4), range(2)], (-1, -1)).values()) == 1.0


def turn(content: str, conversation: str, number: Any) -> dict[str, Any]:
    return {"content": content, "user_id": "ada", "x_openproto": {"conversation": conversation, "turn": number}}


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
    scores = {hit.memory.content: hit.score for hit in await memory.search("cheese", "ada")}
    assert scores == pytest.approx({"shall we buy cheese": 1.0, "yes two please": LENT, "what about wine": LENT})
    assert len(await memory.search("cheese", "ada", min_score=max(scores.values()))) == 1  # which is not left out
    (first, second) = await memory.search("no thanks", "ada")
    assert (first.memory.content, second.memory.content) == ("no thanks", "yes two please")


async def test_words_of_other_rules_are_noticed_and_renewed(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with store.client() as memory:
        await memory.add_many([{"content": f"पिछले दिन {n}", "user_id": "ada"} for n in range(300)])
    assert await store.rows("SELECT rules FROM store") == [(2,)]
    sqlite = ["INSERT INTO words (words) VALUES ('delete-all')", "UPDATE terms SET packed = x'0000000000000001'"]
    postgres = ["UPDATE memories SET words = '{1:1}/1000000000'"]
    older = "UPDATE store SET rules = 1" + (", indexed = 0" if store.name == "sqlite" else "")
    for statement in (older, *(sqlite if store.name == "sqlite" else postgres)):
        await store.rows(statement)
    async with store.client() as memory:
        assert await memory.search("day", "ada") == []
        with pytest.raises(ProviderError, match="run `openproto reindex`"):
            await memory.search("दिन", "ada")
    assert "run `openproto reindex`" in caplog.text
    await store.reindex("none")
    async with store.client() as memory:
        assert len(await memory.search("दिन", "ada", limit=100)) == 100
        assert await memory.search("दान", "ada") == []


SOME_WORDS = [f"word{n}" for n in range(30)]
FILTERS: list[dict[str, Any]] = [{}, {"scope": "s"}, {"tag": "a"}, {"as_of": NOW + timedelta(days=10)}]


def item(rng: random.Random) -> dict[str, Any]:
    return {
        "content": " ".join(rng.sample(SOME_WORDS, 5)),
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


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_each_search_sees_what_another_client_wrote_before_it(store: Any) -> None:
    rng, embedder = random.Random(4), HashEmbedder(16, center_query=True)
    async with AsyncExitStack() as stack:
        writer, keeping, without, small = [
            await stack.enter_async_context(store.client(embedder, search_cache_mb=size)) for size in (1, 256, 0, 0)
        ]
        kept: Any = small._session.provider
        kept._search_cache_bytes = 40_000  # the columns of a few hundred memories, not their vectors
        await writer.add_many([item(rng) for _ in range(30)])
        for kind in rng.sample([0, 1, 1, 1, 2, 3, 4, 5] * 3, k=24):
            await change(writer, rng, kind)
            query = " ".join(rng.sample(SOME_WORDS, 3))
            for wanted in (*({"limit": 100, **each} for each in FILTERS), {"limit": 3, "min_score": 0.3}):
                found = [await memory.search(query, "ada", **wanted) for memory in (keeping, without, small)]
                assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_the_cache_forgets_whoever_was_searched_for_longest_ago(store: Any) -> None:
    async with store.client(HashEmbedder(64)) as memory:
        memory._session.provider._search_cache_bytes = 400_000
        people = [f"user{n}" for n in range(4)]
        await memory.add_many([{"content": f"note {n}", "user_id": user} for user in people for n in range(1_000)])
        for user in people:
            assert len(await memory.search("note 7", user)) == 10
        users = memory._session.provider._search_cache._users
        assert [user for user, _, _ in users] == people[-len(users) :]
        assert 1 < len(users) < 4
        assert sum(kept.bytes for kept in users.values()) <= 400_000
    assert await store.rows("SELECT count(*) FROM changes") == [(4 * 500,)]


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
    halves[-1] = query / (query @ query) * 1.002  # half precision makes some vectors too long
    cosines = ranking_arrays.cosines(halves, query)
    assert cosines == pytest.approx(halves.astype(np.float32) @ query, abs=1e-6)
    has_vector = rng.random(n) < 0.9
    scores = ranking_arrays.fuse(cosines, has_vector, covered, 1.6)
    near = [ranking.nearness(float(cosine)) if has else 0.0 for cosine, has in zip(cosines, has_vector, strict=True)]
    assert max(near) <= 1.0
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
