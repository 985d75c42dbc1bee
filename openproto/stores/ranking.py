"""The score of a memory for a query: how near its vector is, plus how much of the query's words it holds.

    score = (nearness + text_weight * coverage) / (1 + text_weight)
    nearness = 0.05 + max(0.95 * cosine, 0.05 * cosine)
    coverage = sum of idf over the query's terms that the memory has / sum of idf over all the query's terms
    idf(term) = ln(1 + (n - df + 0.5) / (df + 0.5))          (the idf of BM25, Robertson and Zaragoza 2009, 3.3)

with `n` the number of the user's memories and `df` the number of them that have the term. The sum keeps how *much*
better one memory is, which reciprocal-rank fusion throws away. Scores lie in [0, 1] and compare within one query. A
variant of a word is one more term, of half its idf, where any memory has it; a memory that has the word has its
variants too, but for those that say more than the word. A memory with a vector is never without a score: which side of
a plane its vector lies on orders the memories, and is not a reason to withhold one.

Two settings belong to the embedder. `text_weight` is how much words count next to its vectors; without vectors the
score is the coverage alone. `center_query` is for vectors that crowd into one direction, as static word vectors do:
the query's vector is then moved away from what the user's memories have in common before it is compared,

    cosine = unit(query - mean * n / (n + 20)) . memory        (mean and n: of the user's newest memories, 256 at most)

which leaves a small store nearly as it was.

A turn of a conversation answers together with its neighbouring turns, so the best hits lend them a fifth of their
score (`lend`). The extension `x-openproto` says which memories are turns: {"conversation": any text, "turn": 0, 1,
...}. The stores of this project compute exactly this, each in its own way.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from openproto.models import Place
from openproto.stores.words import QueryTerms

K = TypeVar("K")

CENTERING_HALF_LIFE = 20
"""How many memories there must be for their mean to count half in centring a query."""

CENTERING_SAMPLE = 256
"""How many of the user's newest memories the mean is taken from: more cost time and move it little."""

FLOOR = 0.05
"""The nearness at a cosine of 0. What is farther than that shares the rest of the way down to 0."""

VARIANT_WEIGHT = 0.5
"""How much of its idf a variant of a word counts."""

LENT = 0.2
"""How much of its score a hit lends to the neighbouring turns of the conversation."""

LENDERS = 64
"""How many of the best hits lend."""


@dataclass(frozen=True, slots=True)
class ScoreWeights:
    """The two settings of the score; the defaults are those of a store without vectors."""

    text_weight: float = 1.0
    center_query: bool = False


def idf(n: int, df: int) -> float:
    """Return the weight of a term that `df` of `n` memories have."""
    return math.log(1 + (n - df + 0.5) / (df + 0.5))


def coverage(
    n: int, postings: Sequence[Collection[int]], variants: Sequence[Collection[int]] = (), of: Sequence[int] = ()
) -> dict[int, float]:
    """Return, for each memory that has any of the terms, the idf-weighted share of the terms that it has.

    `postings` holds, for each term of the query, the memories that have it; `variants` those of each variant, and `of`
    says which term that one stands in for, or -1.
    """
    weights = [idf(n, len(posting)) for posting in postings]
    others: list[tuple[Collection[int], float]] = []
    unbound = 0.0
    for posting, place in zip(variants, of, strict=True):
        # What has the word itself has all that stands in for it, whether or not it was indexed under that as well.
        having: Collection[int] = postings[place] if place >= 0 else ()
        more = {*posting}.difference(having)
        if count := len(having) + len(more):
            weight = VARIANT_WEIGHT * idf(n, count)
            others.append((more, weight))
            if place >= 0:
                weights[place] += weight
            else:
                unbound += weight
    total = sum(weights) + unbound
    covered: dict[int, float] = {}
    for memories, weight in [*zip(postings, weights, strict=True), *others]:
        for memory in memories:
            covered[memory] = covered.get(memory, 0.0) + weight
    # The two sums need not add up in the same order, nor, since Python 3.12, round alike.
    return {memory: min(weight / total, 1.0) for memory, weight in covered.items()}


def shares(query: QueryTerms, texts: Sequence[Collection[int]]) -> dict[int, float]:
    """Return the coverage of each text, by its position among `texts`, where those are all that there are."""
    postings, variants = (
        [[n for n, text in enumerate(texts) if term in text] for term in part] for part in (query.terms, query.variants)
    )
    return coverage(len(texts), postings, variants, query.of)


def nearness(cosine: float) -> float:
    """Return a cosine as a share of 1: what is near keeps its cosine almost, and nothing is without any.

    Vectors in half precision may be longer than 1, and the cosine of one with itself as well.
    """
    cosine = min(cosine, 1.0)
    return FLOOR + max((1 - FLOOR) * cosine, FLOOR * cosine)


def cosine_of(near: float) -> float:
    """Return the cosine that `nearness` made `near` of."""
    return (near - FLOOR) / (1 - FLOOR if near >= FLOOR else FLOOR)


def parts_of(score: float, near: float | None, covered: float, text_weight: float) -> dict[str, float]:
    """Return what adds how much to a score, of the nearness and the coverage that it was made of.

    `near` is None in a store without vectors. What neither explains was lent by the neighbouring turns.
    """
    if near is None:
        own = {"words": covered}
    else:
        own = {"cosine": near / (1 + text_weight), "words": text_weight * covered / (1 + text_weight)}
    return {**own, "neighbours": max(0.0, score - sum(own.values()))}


def lend(scores: Mapping[K, float], places: Mapping[K, Place]) -> dict[K, float]:
    """Return the scores after each of the best has lent a part to its neighbouring turns.

    Beside a turn are the one before and the one after; where there is none, for one side may not have been kept, the
    one before or after that. Whoever is lent `x` comes that much nearer to 1: s + x * (1 - s). `scores` are in the
    order in which equal ones stand, the first of them before the others.
    """
    at: dict[tuple[str, int], K] = {
        place: memory for memory, place in reversed(list(places.items())) if memory in scores
    }
    lent: dict[K, float] = {}
    for memory in heapq.nlargest(LENDERS, scores, key=scores.__getitem__) if at else ():
        if scores[memory] > 0 and (place := places.get(memory)) is not None:
            for side in (-1, 1):
                near, far = place.beside(side)
                beside = at.get(near, at.get(far))
                if beside is not None:
                    lent[beside] = lent.get(beside, 0.0) + LENT * scores[memory]
    return {**scores, **{memory: scores[memory] + more * (1 - scores[memory]) for memory, more in lent.items()}}
