"""`add_many` on postgres next to COPY into the same table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any

from openproto_adapters.postgres.vectors import pack_words

from benchmarks.corpus import COLUMNS, Corpus, ReadyEmbedder, pack, users
from benchmarks.harness import Bench, Figure, at_least, for_information, median_ratio, take_turns
from benchmarks.server import new_schema, raw_connection
from openproto import AsyncMemory, MemoryRecord
from openproto.embedding import Vector
from openproto.embedding.vectors import unit_vectors
from openproto.ids import new_id
from openproto.stores.words import words

LEAST = 0.5
BATCH = 1_000
WARM = 2
USERS = users(50)

Ready = tuple[str, str, list[str], Vector]


async def run(bench: Bench) -> list[Figure]:
    """Write batches of a thousand in turns: by add_many, by COPY, and by COPY of rows that are packed already."""
    rounds = bench.size(15, 10)
    corpus, embedder = Corpus(13), ReadyEmbedder()
    batches = [corpus.texts(BATCH) for _ in range(3 * (WARM + rounds))]
    items = [_items(batch) for batch in batches[0::3]]
    ready = [_ready(batch, embedder) for batch in batches[1::3]]
    packed = [list(_rows(_ready(batch, embedder))) for batch in batches[2::3]]
    async with (
        new_schema(bench.url, "bulk") as schema,
        AsyncMemory("postgres", url=bench.url, schema=schema, embedder=embedder) as memory,
        raw_connection(bench.url) as raw,
    ):

        async def copy(rows: Any) -> None:
            await raw.copy_records_to_table("memories", schema_name=schema, columns=COLUMNS, records=rows)

        async def add_many(turn: int) -> None:
            outcomes = await memory.add_many(items[turn])
            assert all(isinstance(outcome, MemoryRecord) for outcome in outcomes), "an item was refused"

        took = await take_turns(
            {
                "add_many": add_many,
                "copy": lambda turn: copy(_rows(ready[turn])),
                "copy_packed": lambda turn: copy(packed[turn]),
            },
            rounds,
            warm=WARM,
        )
    rates = {f"{name}_rows_per_second": round(BATCH / median(seconds)) for name, seconds in took.items()}
    name = "add_many on postgres, rows/s / COPY's"
    return [
        at_least(name, median_ratio(took["copy"], took["add_many"]), LEAST, "x", batch=BATCH, rounds=rounds, **rates),
        for_information(
            f"{name}, of rows packed before the clock runs", median_ratio(took["copy_packed"], took["add_many"]), "x"
        ),
    ]


def _items(texts: Sequence[str]) -> list[dict[str, Any]]:
    return [{"content": text, "user_id": USERS[number % len(USERS)]} for number, text in enumerate(texts)]


def _ready(texts: Sequence[str], embedder: ReadyEmbedder) -> list[Ready]:
    """Return what COPY starts from: the words are known and the vectors are made."""
    vectors = unit_vectors(
        [embedder.vector(text) for text in texts], count=len(texts), model=embedder.model, dim=embedder.dim
    )
    return [
        (USERS[number % len(USERS)], text, words(text), vector)
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        if not isinstance(vector, Exception)
    ]


def _rows(batch: Sequence[Ready]) -> Iterator[tuple[object, ...]]:
    for user, content, found, vector in batch:
        yield (new_id(user), user, content, [], [], *pack_words(found), pack(vector))
