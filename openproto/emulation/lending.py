"""Scores, and what they are made of, where a vendor's hits are ranked here."""

from __future__ import annotations

from openproto.models import MemoryRecord, SearchResult, place_of
from openproto.provider import SearchResults
from openproto.requests import SearchQuery
from openproto.stores.ranking import lend


def hit_of(query: SearchQuery, record: MemoryRecord, part: str, score: float) -> SearchResult:
    """Return a hit whose score is made of one part so far."""
    return SearchResult(memory=record, score=score, parts={part: score} if query.explain else None)


def with_lent(hits: SearchResults) -> SearchResults:
    """Return the hits after turns of a conversation have lent of their scores to the neighbouring turns."""
    numbered = sorted(enumerate(hits), key=lambda hit: hit[1].memory.id, reverse=True)
    places = {n: place for n, hit in numbered if (place := place_of(hit.memory.extensions)) is not None}
    if not places:
        return hits
    scores = lend({n: hit.score for n, hit in numbered}, places)
    return [_raised(hit, scores[n]) for n, hit in enumerate(hits)]


def _raised(hit: SearchResult, score: float) -> SearchResult:
    parts = hit.parts and {**hit.parts, "neighbours": score - hit.score}
    return SearchResult(memory=hit.memory, score=score, parts=parts)
