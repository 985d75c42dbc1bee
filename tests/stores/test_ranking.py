"""Search is the formula of openproto/stores/ranking.py, worked out here by brute force, on both stores."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import sqrt
from typing import Any

import pytest
from toy_embedders import HashEmbedder

from openproto import AsyncMemory, MemoryRecord
from openproto.stores.ranking import CENTERING_HALF_LIFE, CENTERING_SAMPLE, FLOOR, VARIANT_WEIGHT, coverage, idf
from openproto.stores.words import query_terms, terms

NOW = datetime.now(UTC)
WORDS = [f"{a}{b}" for a in "kalo timu seno rabi wexo pudi".split() for b in "na ter ling st om fy".split()]


@dataclass(frozen=True)
class Search:
    query: str
    scope: str | None
    tag: str | None
    as_of: datetime | None
    min_score: float | None
    limit: int

    @property
    def filters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("scope", "tag", "as_of", "min_score", "limit")}


def unit(vector: list[float]) -> list[float]:
    length = sqrt(sum(x * x for x in vector))
    return [x / length for x in vector] if length else vector


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def scores(search: Search, mine: list[MemoryRecord], embedder: HashEmbedder | None) -> dict[str, float]:
    """The score of each record, straight from the formula."""
    words = {record.id: set(terms(record.content)) for record in mine}
    wanted = query_terms(search.query)
    for term, place in zip(wanted.variants, wanted.of, strict=True):
        for held in words.values():
            if place >= 0 and wanted.terms[place] in held:
                held.add(term)
    df = {term: sum(term in held for held in words.values()) for term in (*wanted.terms, *wanted.variants)}
    weights = {term: idf(len(mine), df[term]) for term in wanted.terms}
    weights |= {term: VARIANT_WEIGHT * idf(len(mine), df[term]) for term in wanted.variants if df[term]}
    whole = sum(weights.values())
    covered = {
        id: sum(weight for term, weight in weights.items() if term in held) / whole if whole else 0.0
        for id, held in words.items()
    }
    if embedder is None:
        return covered
    vectors = {record.id: unit(embedder.embed([record.content])[0]) for record in mine}
    asked = unit(embedder.embed([search.query])[0])
    if embedder.center_query and mine:
        newest = sorted(mine, key=lambda r: (r.created_at, r.id), reverse=True)[:CENTERING_SAMPLE]
        share = len(newest) / (len(newest) + CENTERING_HALF_LIFE)
        mean = [sum(column) / len(newest) for column in zip(*(vectors[r.id] for r in newest), strict=True)]
        asked = unit([x - share * m for x, m in zip(asked, mean, strict=True)])
    weight = embedder.text_weight
    cosines = {id: dot(asked, vector) for id, vector in vectors.items()}
    near = {id: FLOOR + (1 - FLOOR if cosine > 0 else FLOOR) * cosine for id, cosine in cosines.items()}
    return {id: (near[id] + weight * covered[id]) / (1 + weight) for id in vectors}


def eligible(search: Search, record: MemoryRecord, records: dict[str, MemoryRecord]) -> bool:
    moment = search.as_of or datetime.now(UTC)
    scope = record.scope or ""
    handovers = [other.valid_from or other.created_at for other in records.values() if record.id in other.supersedes]
    holds_from = record.valid_from or (record.created_at if record.supersedes else None)
    return (
        (search.scope is None or scope == search.scope or scope.startswith(f"{search.scope}/"))
        and (search.tag is None or search.tag in record.tags)
        and (holds_from is None or holds_from <= moment)
        and (record.valid_to is None or moment < record.valid_to)
        and all(handover > moment for handover in handovers)
    )


def check(search: Search, mine: list[MemoryRecord], embedder: HashEmbedder | None, found: list[Any]) -> None:
    """The results are the best by the formula, each with its score; ties may stand in any order."""
    records = {record.id: record for record in mine}
    score = scores(search, mine, embedder)
    floor = max(search.min_score or 0.0, 0.0)
    expected = sorted(
        (score[record.id] for record in mine if eligible(search, record, records) and score[record.id] > 0),
        reverse=True,
    )
    got = [result.score for result in found]
    assert got == sorted(got, reverse=True)
    for result in found:
        assert eligible(search, result.memory, records)
        assert result.score == pytest.approx(score[result.memory.id], abs=1e-3)
        assert result.score >= floor
    surely = [value for value in expected if value > floor + 1e-3]
    perhaps = [value for value in expected if value >= floor - 1e-3]
    assert min(len(surely), search.limit) <= len(got) <= min(len(perhaps), search.limit)
    assert got == pytest.approx(perhaps[: len(got)], abs=2e-3)


async def fill(memory: AsyncMemory, rng: random.Random, count: int) -> None:
    """A random corpus: scopes, tags, validity, supersession, short texts and texts of more than 60 words."""
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
        if ids and rng.random() < 0.15:
            fields["supersedes"] = [rng.choice(ids)]
        record = await memory.add(" ".join(common + rare), user_id="ada", **fields)
        ids.append(record.id)
        if n % 5 == 0:
            await memory.add(" ".join(common), user_id="bob")


def searches(rng: random.Random, moments: list[datetime]) -> list[Search]:
    return [
        Search(
            query=" ".join(
                rng.choices(WORDS, k=rng.choice([1, 2, 5, 25])) + [f"rare{rng.randrange(400)}"] * rng.randrange(2)
            ),
            scope=rng.choice([None, None, "s", "s/t"]),
            tag=rng.choice([None, None, "a", "b"]),
            as_of=rng.choice([None, *moments]),
            min_score=rng.choice([None, 0.0, 0.2, 0.5]),
            limit=rng.choice([1, 5, 10, 100]),
        )
        for _ in range(25)
    ]


@pytest.mark.parametrize(
    ("embedder", "count"),
    [
        (None, 60),
        (HashEmbedder(16), 60),
        (HashEmbedder(64, center_query=True, text_weight=1.6), 60),
        (HashEmbedder(24, center_query=True, text_weight=0.0), 15),
        (HashEmbedder(24, center_query=True, text_weight=0.2), 300),
        (HashEmbedder(600, center_query=True), 40),
    ],
    ids=["words", "vectors", "centred", "centred-few", "centred-many", "long-vectors"],
)
async def test_the_results_are_those_of_the_formula(store: Any, embedder: HashEmbedder | None, count: int) -> None:
    rng = random.Random(count)
    async with store.client(embedder) as memory:
        await fill(memory, rng, count)
        mine = [record async for record in memory.iter("ada")]
        assert any(len(set(terms(record.content))) > 60 for record in mine)
        moments = [NOW - timedelta(days=3), NOW + timedelta(days=10), mine[len(mine) // 2].created_at]
        for search in searches(rng, moments):
            check(search, mine, embedder, await memory.search(search.query, "ada", **search.filters))


def test_no_memory_has_more_than_all_of_the_words() -> None:
    assert max(coverage(3, [range(1), range(2)], [range(4), range(2)], (-1, -1)).values()) == 1.0


async def test_a_changed_memory_is_ranked_by_its_new_words_alone(store: Any) -> None:
    embedder = HashEmbedder(32)
    async with store.client(embedder) as memory:
        long = " ".join(f"word{n}" for n in range(100))
        record = await memory.add(long, user_id="ada")
        await memory.add("tea word7", user_id="ada")
        await memory.update(record.id, content="coffee only")
        for query in ("word99", "coffee", "tea"):
            search = Search(query, None, None, None, None, 10)
            mine = [record async for record in memory.iter("ada")]
            check(search, mine, embedder, await memory.search(query, "ada"))
        await memory.update(record.id, content=long)
        (best, *_) = await memory.search("word99 word98", "ada")
        assert best.memory.id == record.id
