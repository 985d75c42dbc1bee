"""Vectors on the wire: pgvector's binary forms, which cost a few microseconds where text costs a few hundred."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from openproto.embedding import Vector
from openproto.stores.scripts import prefixes
from openproto.stores.words import PerWord, QueryTerms, begun_words, term

# An entry of a B-tree index must stay below 2704 bytes. With user ids of 256 four-byte characters, this many words of
# 8 bytes and this many dimensions of 2 bytes are what fits next to each other.
MOST_WORDS = 60
MOST_INCLUDED_DIMENSIONS = 512

# Words are places in a sparse vector: terms, hashes of 64 bits, folded to what pgvector allows. Two words of one
# query that fall on the same place count as one; with a vocabulary of 50,000 that is one query in 3,000.
_PLACES = 1_000_000_000
_MOST_ENTRIES = 16_000  # pgvector's own limit
_ONES = struct.pack(">f", 1.0) * _MOST_ENTRIES


def pack_halfvec(vector: Vector) -> bytes:
    """Return a `halfvec`: dimensions, a reserved field, and half-precision numbers."""
    return _halfvec_header(len(vector)) + vector.astype(">f2").tobytes()


def pack_halfvecs(vectors: Sequence[Vector]) -> list[bytes]:
    """Return a `halfvec` of each of vectors of the same length."""
    import numpy as np

    numbers = np.asarray(vectors).astype(">f2").tobytes()
    header = _halfvec_header(len(vectors[0]))
    size = len(numbers) // len(vectors)
    return [header + numbers[start : start + size] for start in range(0, len(numbers), size)]


def to_half_precision(halfvec: bytes) -> bytes:
    """Return the numbers of a `halfvec`, the lowest byte first."""
    import numpy as np

    return np.frombuffer(halfvec, ">f2", offset=len(_halfvec_header(0))).astype("<f2").tobytes()


def _halfvec_header(dimensions: int) -> bytes:
    return struct.pack(">hh", dimensions, 0)


class PackedWords(NamedTuple):
    """The words of a memory as two `sparsevec`s: the first of them and, if there are more, the others."""

    first: bytes
    others: bytes | None


def index_text(text: str) -> PackedWords:
    """Return the words of a memory's text."""
    found, begun = begun_words(text)
    joined = map(_PACKED_PLACES.__getitem__, found[len(begun) :])
    packed = b"".join([*map(_PACKED_WITH_BEGINNINGS.__getitem__, begun), *joined])
    if len(places := {*struct.unpack(f">{len(packed) // 4}i", packed)}) > MOST_WORDS:
        return pack_words([*found, *prefixes(*begun)])
    count = len(places)
    return PackedWords(struct.pack(f">iii{count}i{4 * count}s", _PLACES, count, 0, *sorted(places), _ONES), None)


def pack_words(words: Iterable[str]) -> PackedWords:
    """Return normalised words, in order, each of them once."""
    return _pack_words(map(_PACKED_PLACES.__getitem__, words))


def _pack_words(places: Iterable[bytes]) -> PackedWords:
    places = list(dict.fromkeys(places))
    if len(places) <= MOST_WORDS:
        return PackedWords(_pack_places(places), None)
    return PackedWords(_pack_places(places[:MOST_WORDS]), _pack_places(places[MOST_WORDS : MOST_WORDS + _MOST_ENTRIES]))


class PackedQuery(NamedTuple):
    """The words of a query, and its variants behind them, as two `sparsevec`s that weigh them 1, 2, 4, ..."""

    first: bytes
    others: bytes
    bits: list[int]
    """For each of them the bits that stand for it in a mask of both vectors: its own, and that of its word."""
    words: int
    """How many of them are words and not variants."""
    places: list[int]
    """The place of each of them, as the text of a `sparsevec` counts them: from 1 on."""


def pack_query(query: QueryTerms, bits: int) -> PackedQuery:
    """Return the query, `bits` of its words in each vector."""
    own = [_packed_place(term) for term in query.terms]
    standing_for = dict.fromkeys(own, 0)
    for variant, number in zip(query.variants, query.of, strict=True):
        standing_for.setdefault(
            _packed_place(variant), 1 << list(standing_for).index(own[number]) if number >= 0 else 0
        )
    places = list(standing_for)[: 2 * bits]
    first, others = (
        _pack_places(weights, b"".join(weights[place] for place in sorted(weights)))
        for weights in (
            {place: struct.pack(">f", 1 << i) for i, place in enumerate(part)}
            for part in (places[:bits], places[bits:])
        )
    )
    masks = [1 << n | standing_for[place] for n, place in enumerate(places)]
    numbers = [int.from_bytes(place) + 1 for place in places]
    return PackedQuery(first, others, masks, len(set(own)), numbers)


def _packed_place(term: int) -> bytes:
    """Return the place of a term as it is sent; places in this form are in the order of their numbers."""
    return struct.pack(">i", term % _PLACES)


_PACKED_PLACES = PerWord(lambda word: _packed_place(term(word)))
# One object for each word, and not for each of its beginnings: most are far from the processor when they are needed.
_PACKED_WITH_BEGINNINGS = PerWord(lambda word: b"".join(map(_PACKED_PLACES.__getitem__, (word, *prefixes(word)))))


def _pack_places(places: Collection[bytes], values: bytes = _ONES) -> bytes:
    """Return a `sparsevec`: dimensions, number of entries, a reserved field, ascending places, values of 4 bytes."""
    count = len(places)
    return b"".join((struct.pack(">iii", _PLACES, count, 0), *sorted(places), values[: 4 * count]))
