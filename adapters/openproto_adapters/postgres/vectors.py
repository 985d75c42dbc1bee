"""Vectors on the wire: pgvector's binary forms, which cost a few microseconds where text costs a few hundred."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence

from openproto.embedding import Vector

# An entry of a B-tree index must stay below 2704 bytes. With user ids of 256 four-byte characters, this many words of
# 8 bytes and this many dimensions of 2 bytes are what fits beside each other.
MOST_WORDS = 60
MOST_INCLUDED_DIMENSIONS = 512

# Words are places in a sparse vector: terms, hashes of 64 bits, folded to what pgvector allows. Two words of one
# query that fall on the same place count as one; with a vocabulary of 50,000 that is one query in 3,000.
_PLACES = 1_000_000_000
_MOST_ENTRIES = 16_000  # pgvector's own limit
_ONES = struct.pack(">f", 1.0) * _MOST_ENTRIES


def pack_halfvec(vector: Vector) -> bytes:
    """Return a `halfvec`: dimensions, a reserved field, and half-precision numbers."""
    return struct.pack(">hh", len(vector), 0) + vector.astype(">f2").tobytes()


def pack_words(terms: Sequence[int]) -> tuple[bytes, bytes | None]:
    """Return the `sparsevec`s for the first words of a memory and, if there are more, for the others."""
    if len(terms) <= MOST_WORDS:
        return _pack_places({term % _PLACES for term in terms}), None
    places = list(dict.fromkeys(term % _PLACES for term in terms))
    first, others = places[:MOST_WORDS], places[MOST_WORDS : MOST_WORDS + _MOST_ENTRIES]
    return _pack_places(first), _pack_places(others) if others else None


def pack_query(terms: Sequence[int], bits: int) -> tuple[bytes, bytes, int]:
    """Return two `sparsevec`s that weigh a query's words 1, 2, 4, ..., `bits` of them each, and how many there are."""
    places = list(dict.fromkeys(term % _PLACES for term in terms))[: 2 * bits]
    first, others = (
        _pack_places(weights, struct.pack(f">{len(weights)}f", *(weights[place] for place in sorted(weights))))
        for weights in (
            {place: float(1 << i) for i, place in enumerate(part)} for part in (places[:bits], places[bits:])
        )
    )
    return first, others, len(places)


def _pack_places(places: Collection[int], values: bytes = _ONES) -> bytes:
    """Return a `sparsevec`: dimensions, number of entries, a reserved field, ascending places, values of 4 bytes."""
    count = len(places)
    return struct.pack(f">iii{count}i", _PLACES, count, 0, *sorted(places)) + values[: 4 * count]
