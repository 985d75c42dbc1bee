"""Invented memories: words as rare and as common as in a language, and vectors that are ready before the clock runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from openproto_adapters.postgres.vectors import pack_words

from benchmarks.harness import Watch
from openproto.embedding import Vector
from openproto.ids import new_id
from openproto.stores.words import words

DIMENSIONS = 256
WORDS_PER_MEMORY = 14
WORDS_PER_QUERY = 6

_VOCABULARY = 20_000
_READY_VECTORS = 4_096
_COPY_BATCH = 5_000
_HEADER = np.array([DIMENSIONS, 0], dtype=">i2").tobytes()
_SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]

# The columns of `memories` that an add without options fills.
COLUMNS = ("id", "user_id", "content", "tags", "supersedes", "words", "more_words", "embedding")


class ReadyEmbedder:
    """An embedder that costs nothing: each text has one of a few thousand vectors that were made beforehand."""

    model = "benchmark-ready"
    dim = DIMENSIONS
    # As the local embedder has them, so that the statement is the one that most users run.
    text_weight = 1.6
    center_query = True

    def __init__(self, seed: int = 1) -> None:
        self._vectors = unit_vectors(np.random.default_rng(seed), _READY_VECTORS).astype(np.float32)

    async def embed(self, texts: Sequence[str]) -> list[Vector]:
        """Return the vectors of the texts."""
        return [self.vector(text) for text in texts]

    def vector(self, text: str) -> Vector:
        """Return the vector of the text."""
        vector: Vector = self._vectors[crc32(text.encode()) % _READY_VECTORS]
        return vector


class Corpus:
    """Makes texts; the frequency of a word falls with its rank, as Zipf found."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._words = [_word(number) for number in range(_VOCABULARY)]
        weights = 1 / np.arange(2.7, _VOCABULARY + 2.7)
        self._cumulated = np.cumsum(weights / weights.sum())

    def texts(self, count: int, words: int = WORDS_PER_MEMORY) -> list[str]:
        """Return `count` texts of so many words."""
        chosen = np.searchsorted(self._cumulated, self.random.random((count, words)) * self._cumulated[-1])
        return [" ".join([self._words[number] for number in row]) for row in chosen.tolist()]

    def queries(self, count: int) -> list[str]:
        """Return `count` texts to search with."""
        return self.texts(count, WORDS_PER_QUERY)


class Load(NamedTuple):
    """Which users to fill a schema with, and how many memories each gets."""

    schema: str
    users: list[str]
    memories_each: int


async def load(connection: Any, what: Load, watch: Watch, *, seed: int = 1) -> None:
    """Fill a store's tables by COPY, the users' rows mixed as they would come in, and let PostgreSQL tidy up."""
    corpus = Corpus(seed)
    total = len(what.users) * what.memories_each
    with watch.steps(f"loading {total:,} memories", total) as done:
        for start in range(0, total, _COPY_BATCH):
            count = min(_COPY_BATCH, total - start)
            users = [what.users[number % len(what.users)] for number in range(start, start + count)]
            await connection.copy_records_to_table(
                "memories", schema_name=what.schema, columns=COLUMNS, records=rows(corpus, users)
            )
            done(count)
    await connection.execute(f"VACUUM (ANALYZE) {what.schema}.memories")


def pack(vector: Vector) -> bytes:
    """Return a vector in pgvector's binary form, as one who has NumPy and no openproto would write it."""
    return _HEADER + vector.astype(">f2").tobytes()


def rows(corpus: Corpus, users: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """Yield a row of `COLUMNS` for each user named."""
    vectors = unit_vectors(corpus.random, len(users)).astype(">f2")
    for user, content, vector in zip(users, corpus.texts(len(users)), vectors, strict=True):
        first, others = pack_words(words(content))
        yield (new_id(user), user, content, [], [], first, others, _HEADER + vector.tobytes())


def unit_vectors(random: np.random.Generator, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return `count` vectors that point anywhere, with something in common as those of real texts have."""
    found = random.standard_normal((count, DIMENSIONS), dtype=np.float32) + np.float32(0.5)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def users(count: int, name: str = "user") -> list[str]:
    """Return the ids of so many users."""
    return [f"{name}-{number:05}" for number in range(count)]


def _word(number: int) -> str:
    syllables = []
    number += len(_SYLLABLES)  # at least two
    while number:
        number, place = divmod(number, len(_SYLLABLES))
        syllables.append(_SYLLABLES[place])
    return "".join(syllables)
