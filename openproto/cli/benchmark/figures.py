"""Figures of a ranking, each with the interval that 95 of 100 samples of such questions would give."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

CUTS = (1, 5, 10)
_SAMPLES = 1_000


class Figure(NamedTuple):
    """A mean over questions, and its confidence interval."""

    mean: float
    low: float
    high: float


def marks(ranks: Sequence[int], wanted: int) -> dict[str, float]:
    """Return the marks of one question: `ranks` are the places, from 1, of what was found of `wanted` turns."""
    found = {f"any@{k}": float(any(rank <= k for rank in ranks)) for k in CUTS}
    found |= {f"all@{k}": float(sum(rank <= k for rank in ranks) == wanted) for k in CUTS[1:]}
    gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= CUTS[-1])
    ideal = sum(1 / math.log2(n + 2) for n in range(min(wanted, CUTS[-1])))
    return found | {"MRR": 1 / min(ranks) if ranks else 0.0, "nDCG@10": gain / ideal}


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Figure]]:
    """Return each ranking's figures, from the rows of its questions alone."""
    by_ranking: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        by_ranking.setdefault(row["ranking"], []).append(marks(row["ranks"], row["wanted"]))
    return {
        ranking: {name: _figure([mark[name] for mark in found]) for name in found[0]}
        for ranking, found in by_ranking.items()
    }


def _figure(values: Sequence[float]) -> Figure:
    rng = random.Random(len(values))  # noqa: S311 - the same rows give the same interval
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(_SAMPLES))
    return Figure(fmean(values), means[int(0.025 * _SAMPLES)], means[int(0.975 * _SAMPLES)])
