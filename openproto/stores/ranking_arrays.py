"""The formula of `ranking.py` over all of a user's memories at once, as NumPy arrays: one element for each memory.

It gives the same scores to the last bit, which a test holds, and no loop goes over the memories.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openproto.models import MOST_BESIDE, Place
from openproto.stores.ranking import FLOOR, LENDERS, VARIANT_WEIGHT, idf, lend

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.int64]

_ROWS_AT_ONCE = 512
_EXPONENT = np.float32(2.0**112)
_HALF_BITS = np.int32(-0x70002000)  # the sign, and what 5 bits of exponent and 10 of fraction become, 13 places up


def cosines(halves: NDArray[np.float16], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the product of each row of `halves` with `query`, in single precision.

    NumPy converts half precision one number after the other. Here the bits are moved, a few rows at a time that stay
    in the processor's cache: each row is then too small by 2 to the power of 112, and the query as much too large.
    `einsum` works on each row alone, so that equal vectors are equally near wherever they stand; BLAS does not.
    """
    bits = halves.view(np.int16)
    found = np.empty(len(bits), np.float32)
    singles = np.empty((min(_ROWS_AT_ONCE, len(bits)), bits.shape[1]), np.int32)
    scaled = query * _EXPONENT
    for start in range(0, len(bits), _ROWS_AT_ONCE):
        rows = bits[start : start + _ROWS_AT_ONCE]
        part = singles[: len(rows)]
        np.copyto(part, rows)
        np.left_shift(part, 13, out=part)
        np.bitwise_and(part, _HALF_BITS, out=part)
        np.einsum("ij,j->i", part.view(np.float32), scaled, out=found[start : start + len(rows)])
    return found


def coverage(
    n: int,
    size: int,
    postings: Sequence[Positions],
    variants: Sequence[Positions] = (),
    of: Sequence[int] = (),
) -> Floats:
    """Return what `ranking.coverage` does, for each of `size` positions; each posting is sorted."""
    weights = [idf(n, len(posting)) for posting in postings]
    others: list[tuple[Positions, float]] = []
    unbound = 0.0
    for posting, place in zip(variants, of, strict=True):
        having = len(postings[place]) if place >= 0 else 0
        more = np.setdiff1d(posting, postings[place], assume_unique=True) if having else posting
        if count := having + len(more):
            weight = VARIANT_WEIGHT * idf(n, count)
            others.append((more, weight))
            if place >= 0:
                weights[place] += weight
            else:
                unbound += weight
    covered = np.zeros(size)
    for positions, weight in [*zip(postings, weights, strict=True), *others]:
        covered[positions] += weight
    if total := sum(weights) + unbound:
        covered /= total
    return covered


def near(cosine: NDArray[np.float32], has_vector: Flags) -> Floats:
    """Return what `ranking.nearness` does, and 0 where there is no vector."""
    wide = cosine.astype(np.float64)
    nearness: Floats = np.where(has_vector, FLOOR + np.maximum((1 - FLOOR) * wide, FLOOR * wide), 0.0)
    return nearness


def fuse(cosine: NDArray[np.float32], has_vector: Flags, covered: Floats, text_weight: float) -> Floats:
    """Return the score of each memory."""
    scores: Floats = (near(cosine, has_vector) + text_weight * covered) / (1 + text_weight)
    return scores


def best(scores: Floats, most: int) -> Positions:
    """Return the positions of the `most` highest scores, the best first, and of equal ones the last first."""
    if most < len(scores):
        least = np.partition(scores, -most)[-most]
        among = np.flatnonzero(scores >= least)
    else:
        among = np.arange(len(scores))
    order: Positions = among[np.lexsort((-among, -scores[among]))][:most]
    return order


def lend_to_turns(scores: Floats, conversation: NDArray[np.int32], turn: NDArray[np.int32]) -> None:
    """Raise in `scores` what `ranking.lend` does; what has less than 0 takes no part.

    `conversation` numbers the conversations, -1 where there is none. Whatever is neither one of the best nor may be
    next to one is left out, so that the function itself sees few.
    """
    lenders = best(scores, LENDERS)
    lenders = lenders[scores[lenders] > 0]
    turns = lenders[conversation[lenders] >= 0]
    if not len(turns):
        return
    talked = np.zeros(int(conversation.max()) + 2, bool)  # the last is that of -1
    talked[conversation[turns]] = True
    among = np.flatnonzero(talked[conversation] & (scores >= 0))
    said = _place(conversation[turns], turn[turns])
    beside = np.unique(np.concatenate([said + step for step in (-MOST_BESIDE, -1, 1, MOST_BESIDE)]))
    places_told = _place(conversation[among], turn[among])
    is_beside = beside[np.searchsorted(beside[:-1], places_told)] == places_told
    among = np.union1d(among[is_beside], lenders)[::-1]
    keys = among.tolist()
    told = zip(conversation[among].tolist(), turn[among].tolist(), strict=True)
    places = {key: Place(str(talk), at) for key, (talk, at) in zip(keys, told, strict=True) if talk >= 0}
    lent = lend(dict(zip(keys, scores[among].tolist(), strict=True)), places)
    scores[among] = list(lent.values())


def _place(conversation: NDArray[np.int32], turn: NDArray[np.int32]) -> Positions:
    places: Positions = (conversation.astype(np.int64) << 32) + turn
    return places
