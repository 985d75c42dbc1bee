"""Scores of neighbours, where a vendor's hits are ranked here."""

from __future__ import annotations

from openproto.models import SearchResult, place_of
from openproto.provider import SearchResults
from openproto.stores.ranking import lend


def with_lent(hits: SearchResults) -> SearchResults:
    """Return the hits after turns of a conversation have lent of their scores to the neighbouring turns."""
    numbered = sorted(enumerate(hits), key=lambda hit: hit[1].memory.id, reverse=True)
    places = {n: place for n, hit in numbered if (place := place_of(hit.memory.extensions)) is not None}
    if not places:
        return hits
    scores = lend({n: hit.score for n, hit in numbered}, places)
    return [SearchResult(memory=hit.memory, score=scores[n]) for n, hit in enumerate(hits)]
