"""The score of a memory for a query: how near its vector is, plus how much of the query's words it holds.

    score = (max(0, cosine) + weight * coverage) / (1 + weight)
    coverage = sum of idf over the query's terms that the memory has / sum of idf over all the query's terms
    idf(term) = ln(1 + (n - df + 0.5) / (df + 0.5))          (the idf of BM25, Robertson and Zaragoza 2009, 3.3)

with `n` the number of the user's memories and `df` the number of them that have the term. The sum keeps how *much*
better one memory is, which reciprocal-rank fusion throws away. `weight` belongs to the embedder; without one the
score is the coverage alone. Scores lie in [0, 1] and compare within one query.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping


def idf(n: int, df: int) -> float:
    """Return the weight of a term that `df` of `n` memories have."""
    return math.log(1 + (n - df + 0.5) / (df + 0.5))


def coverage(n: int, postings: Iterable[Collection[int]]) -> dict[int, float]:
    """Return, for each memory that has any of the terms, the idf-weighted share of the terms that it has.

    `postings` holds, for each term of the query, the memories that have it.
    """
    total = 0.0
    covered: dict[int, float] = {}
    for posting in postings:
        weight = idf(n, len(posting))
        total += weight
        for memory in posting:
            covered[memory] = covered.get(memory, 0.0) + weight
    return {memory: weight / total for memory, weight in covered.items()}


def fuse(cosines: Mapping[int, float], covered: Mapping[int, float], weight: float) -> dict[int, float]:
    """Return the score of each memory that is related at all."""
    return {
        memory: score
        for memory in cosines.keys() | covered.keys()
        if (score := (max(0.0, cosines.get(memory, 0.0)) + weight * covered.get(memory, 0.0)) / (1 + weight))
        > 0
    }
