"""How well `search` finds the turns that answer the questions of LoCoMo, on both stores, next to each half alone."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeAlias

from benchmarks.harness import Bench, Figure, above, at_least, at_most, for_information, not_run
from benchmarks.server import new_schema
from openproto import AsyncMemory, MemoryRecord
from openproto.embedding import LocalEmbedder

LEAST_ANY10, LEAST_MRR = 0.70, 0.49  # of turns stored one by one, without their places in a conversation
# The stores keep vectors in half and in single precision: scores nearer than this are a tie.
TIE = 0.001
LEAST_ALIKE, MOST_APART = 0.99, 0.001
DEPTH = 100
ADVERSARIAL = 5

Ranking: TypeAlias = dict[str, float]


class Conversation(NamedTuple):
    """Turns by their ids, and questions with the turns that answer them."""

    name: str
    turns: dict[str, str]
    questions: list[tuple[str, set[str]]]


class CosineOnly(LocalEmbedder):
    """The local embedder for a store that lets words count nothing."""

    text_weight: float = 0.0


EMBEDDERS: dict[str, Any] = {"both": "local", "cosine": CosineOnly(), "words": "none"}


async def run(bench: Bench) -> list[Figure]:
    """Grade both stores and compare them; without the conversations say so."""
    if bench.locomo is None:
        return [not_run("retrieval on LoCoMo", "its conversations were not found: --locomo, or OPENPROTO_LOCOMO")]
    conversations = [read(file) for file in sorted(bench.locomo.glob("*.json"))]
    found: dict[str, dict[str, list[Ranking]]] = {"sqlite": {}, "postgres": {}}
    for half, embedder in EMBEDDERS.items():
        async with _stores(bench, half, embedder) as stores:
            for name, memory in stores.items():
                found[name][half] = await _ask(bench, f"{name}, {half}", memory, conversations)
    wanted = [answers for conversation in conversations for _, answers in conversation.questions]
    figures = [figure for name, rankings in found.items() for figure in _graded(name, rankings, wanted)]
    return figures + _alike(found["sqlite"]["both"], found["postgres"]["both"])


def read(file: Path) -> Conversation:
    """Return a conversation with the questions whose answers are turns of it, the unanswerable ones left out."""
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    turns: dict[str, str] = {}
    for key, session in data.items():
        if re.fullmatch(r"session_\d+", key):
            for turn in session:
                caption = turn.get("blip_caption")
                turns[turn["dia_id"]] = f"{turn['speaker']}: {turn['text']}" + (f" [{caption}]" if caption else "")
    questions = [
        (question["question"], answers)
        for question in data["qa"]
        if question["category"] != ADVERSARIAL and (answers := turns.keys() & set(question.get("evidence", ())))
    ]
    return Conversation(file.stem, turns, questions)


@asynccontextmanager
async def _stores(bench: Bench, half: str, embedder: Any) -> AsyncIterator[dict[str, AsyncMemory]]:
    with TemporaryDirectory(dir=bench.folder) as folder:
        async with (
            new_schema(bench.url, f"locomo_{half}") as schema,
            AsyncMemory("sqlite", path=Path(folder) / "memory.db", embedder=embedder, audit_reads=False) as sqlite,
            AsyncMemory("postgres", url=bench.url, schema=schema, embedder=embedder, audit_reads=False) as postgres,
        ):
            yield {"sqlite": sqlite, "postgres": postgres}


async def _ask(bench: Bench, title: str, memory: AsyncMemory, conversations: Sequence[Conversation]) -> list[Ranking]:
    """Store every turn as one memory, ask every question, and return the turns found with their scores."""
    rankings: list[Ranking] = []
    with bench.watch.steps(f"LoCoMo on {title}", sum(len(c.questions) for c in conversations)) as done:
        for conversation in conversations:
            items = [
                {"content": text, "user_id": conversation.name, "source": {"ref": turn}}
                for turn, text in conversation.turns.items()
            ]
            stored = await memory.add_many(items)
            turn_of = {
                record.id: turn
                for record, turn in zip(stored, conversation.turns, strict=True)
                if isinstance(record, MemoryRecord)
            }
            assert len(turn_of) == len(conversation.turns), "a turn was refused"
            for question, _ in conversation.questions:
                found = await memory.search(question, conversation.name, limit=DEPTH)
                rankings.append({turn_of[result.memory.id]: result.score for result in found})
                done(1)
    return rankings


def _graded(store: str, rankings: dict[str, list[Ranking]], wanted: Sequence[set[str]]) -> list[Figure]:
    marks = {half: _marks(found, wanted) for half, found in rankings.items()}
    both, halves = marks["both"], [marks["cosine"], marks["words"]]
    figures = [
        at_least(f"LoCoMo on {store}: any@10", both["any@10"], LEAST_ANY10, "", questions=len(wanted), **marks),
        for_information(f"LoCoMo on {store}: any@5", both["any@5"]),
        at_least(f"LoCoMo on {store}: MRR", both["MRR"], LEAST_MRR, mrr_looks_at=DEPTH),
    ]
    for mark in ("any@10", "MRR"):
        better = max(half[mark] for half in halves)
        figures.append(above(f"LoCoMo on {store}: {mark}, against the better half alone", both[mark], better))
    return figures


def _marks(rankings: Sequence[Ranking], wanted: Sequence[set[str]]) -> dict[str, float]:
    ranks = [
        next((rank for rank, turn in enumerate(ranking, 1) if turn in answers), None)
        for ranking, answers in zip(rankings, wanted, strict=True)
    ]
    marks = {f"any@{k}": fmean(rank is not None and rank <= k for rank in ranks) for k in (5, 10)}
    return marks | {"MRR": fmean(1 / rank if rank else 0.0 for rank in ranks)}


def _alike(ours: Sequence[Ranking], theirs: Sequence[Ranking]) -> list[Figure]:
    pairs = list(zip(ours, theirs, strict=True))
    identical = fmean(list(a)[:10] == list(b)[:10] for a, b in pairs)
    apart = [abs(a[turn] - b[turn]) for a, b in pairs for turn in list(a)[:10] if turn in b]
    return [
        at_least(
            "sqlite and postgres: questions with the same ten turns up to ties",
            fmean(_same_up_to_ties(a, b) for a, b in pairs),
            LEAST_ALIKE,
            tie=TIE,
            identical_to_the_last_place=round(identical, 4),
        ),
        at_most(
            "sqlite and postgres: mean difference of a score", fmean(apart), MOST_APART, largest=round(max(apart), 6)
        ),
    ]


def _same_up_to_ties(a: Ranking, b: Ranking) -> bool:
    """Say whether wherever the first ten differ, the two turns in that place have nearly one score."""
    return all(
        here == there or (there in a and abs(a[here] - a[there]) <= TIE)
        for here, there in zip(list(a)[:10], list(b)[:10], strict=False)
    )
