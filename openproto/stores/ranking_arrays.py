"""The formula of `ranking.py` over all of a user's memories at once, as NumPy arrays: one element for each memory.

It gives the same scores to the last bit, which a test holds, and no loop goes over the memories.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openproto.models import MOST_BESIDE
from openproto.stores.ranking import FLOOR, LENDERS, LENT, VARIANT_WEIGHT, idf

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Positions = NDArray[np.int64]

_SIDES = np.array([-1, 1])
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
    has_word = np.zeros(size, bool)
    for posting, place in zip(variants, of, strict=True):
        having = len(postings[place]) if place >= 0 else 0
        more = posting
        if having and len(posting):
            has_word[postings[place]] = True
            more = posting[~has_word[posting]]
            has_word[postings[place]] = False
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
    wide = np.minimum(cosine.astype(np.float64), 1.0)
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


class Turns:
    """Where the turns of conversations stand, in an order in which the neighbours of a turn are found fast.

    `conversation` numbers the conversation of each memory, -1 where there is none.
    """

    def __init__(self, conversation: NDArray[np.int32], turn: NDArray[np.int32]) -> None:
        self._said: Positions = np.where(conversation >= 0, (conversation.astype(np.int64) << 32) + turn, -1)
        told = np.flatnonzero(self._said >= 0)
        self._at: Positions = told[np.argsort(self._said[told], kind="stable")]
        self._places = self._said[self._at]

    @property
    def nbytes(self) -> int:
        """How many bytes this takes."""
        return self._said.nbytes + self._at.nbytes + self._places.nbytes

    def lend(self, scores: Floats) -> None:
        """Raise in `scores` what `ranking.lend` does; what has less than 0 takes no part."""
        lenders = best(scores, LENDERS) if len(self._at) else self._at
        lenders = lenders[(scores[lenders] > 0) & (self._said[lenders] >= 0)]
        if not len(lenders):
            return
        said = self._said[lenders, np.newaxis]
        near, far = (self._find(said + distance * _SIDES, scores) for distance in (1, MOST_BESIDE))
        beside = np.where(near >= 0, near, far).ravel()
        found, whose = np.unique(beside, return_inverse=True)
        lent = np.bincount(whose, LENT * np.repeat(scores[lenders], len(_SIDES)))
        found, lent = found[found >= 0], lent[found >= 0]
        scores[found] += lent * (1 - scores[found])

    def _find(self, wanted: Positions, scores: Floats) -> Positions:
        """Return which memory that takes part was said in each place, the last of several; -1 where none was."""
        at = np.searchsorted(self._places, wanted, side="right") - 1
        while True:
            is_there = (at >= 0) & (self._places[at] == wanted)
            found = self._at[at]
            left_out = is_there & (scores[found] < 0)
            if not left_out.any():
                return np.where(is_there, found, -1)
            at = at - left_out
