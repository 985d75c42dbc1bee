"""Filling a memory with conversations and asking it, beside the rankings that any memory should beat."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, NamedTuple

from openproto import AsyncMemory, MemoryRecord, OpenProtoError
from openproto.cli.benchmark.conversations import Conversation, Said
from openproto.stores.words import terms

DEPTH = 100
_BM25_K, _BM25_B = 1.2, 0.75


class Asked(NamedTuple):
    """A row for each question and ranking, and how long the memory's searches took."""

    rows: list[dict[str, Any]]
    seconds: list[float]


async def ask(
    memory: AsyncMemory,
    conversations: Sequence[Conversation],
    prefix: str,
    done: Callable[[int, int], None],
    name: str = "memory",
) -> Asked:
    """Store every turn as a memory of a user of its own conversation, ask every question, and remove all of it.

    The memory's ranking is called `name`; its rivals are asked next to "memory" alone.
    """
    rows: list[dict[str, Any]] = []
    seconds: list[float] = []
    total = sum(len(conversation.questions) for conversation in conversations)
    for conversation in conversations:
        user_id = f"{prefix}-{conversation.name}"
        try:
            turn_of = await _store(memory, conversation, user_id)
            rival = Rivals(conversation.turns)
            for number, question in enumerate(conversation.questions):
                started = perf_counter()
                hits = await memory.search(question.text, user_id, limit=DEPTH)
                seconds.append(perf_counter() - started)
                rankings: dict[str, Sequence[str]] = {name: [turn_of[hit.memory.id] for hit in hits]}
                if name == "memory":
                    rankings |= rival.rankings(question.text)
                for ranked_by, ranking in rankings.items():
                    ranks = [rank for rank, turn in enumerate(ranking, 1) if turn in question.evidence]
                    rows.append(
                        {
                            "ranking": ranked_by,
                            "conversation": conversation.name,
                            "question": number,
                            "wanted": len(question.evidence),
                            "ranks": ranks,
                        }
                    )
                done(len(seconds), total)
        finally:
            await memory.delete_all(user_id)
    return Asked(rows, seconds)


async def _store(memory: AsyncMemory, conversation: Conversation, user_id: str) -> dict[str, str]:
    """Store the turns and return the turn of each record's id."""
    items = [
        {
            "content": turn.text,
            "user_id": user_id,
            "source": {"ref": turn.id, "type": "imported"},
            "x_openproto": {"conversation": f"{conversation.name}/{turn.session}", "turn": number},
        }
        for number, turn in enumerate(conversation.turns)
    ]
    stored = await memory.add_many(items)
    for outcome in stored:
        if isinstance(outcome, OpenProtoError):
            raise outcome
    records = [outcome for outcome in stored if isinstance(outcome, MemoryRecord)]
    await memory.wait_for_ingest([record.id for record in records], user_id)
    return {record.id: turn.id for record, turn in zip(records, conversation.turns, strict=True)}


class Rivals:
    """Rankings without a memory: by chance, the newest first, by BM25, and everything as it was said."""

    def __init__(self, turns: Sequence[Said]) -> None:
        self._ids = [turn.id for turn in turns]
        self._terms = [terms(turn.text) for turn in turns]
        self._mean = sum(map(len, self._terms)) / max(len(turns), 1)
        self._rng = random.Random(len(turns))  # noqa: S311 - a ranking by chance that can be repeated

    def rankings(self, query: str) -> dict[str, Sequence[str]]:
        """Return each ranking of the turns for the query."""
        return {
            "random": self._rng.sample(self._ids, len(self._ids))[:DEPTH],
            "recency": self._ids[::-1][:DEPTH],
            "BM25": [self._ids[n] for n in self._bm25(query)][:DEPTH],
            "full dump": self._ids,
        }

    def _bm25(self, query: str) -> Iterator[int]:
        count = len(self._terms)
        scores = [0.0] * count
        for term in terms(query):
            having = [n for n, found in enumerate(self._terms) if term in found]
            weight = math.log(1 + (count - len(having) + 0.5) / (len(having) + 0.5))
            for n in having:
                length = len(self._terms[n]) / (self._mean or 1.0)
                scores[n] += weight * (_BM25_K + 1) / (1 + _BM25_K * (1 - _BM25_B + _BM25_B * length))
        return (n for n in sorted(range(count), key=lambda n: (-scores[n], n)) if scores[n] > 0)
