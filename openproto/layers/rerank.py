"""The reranking step: the first hits of a search in the order that the caller's model prefers."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol, cast

from openproto.blocking.threads import Threads
from openproto.context import TokenCounter
from openproto.layers.layer import Layer
from openproto.models import ContextBlock, SearchResult
from openproto.provider import Provider, SearchResults
from openproto.requests import MAX_SEARCH_LIMIT, ContextQuery, SearchQuery

_log = logging.getLogger(__name__)

FIRST_HITS = 30
"""How many hits are reranked, or as many as were asked for where that is more."""

TIMEOUT = 0.5
"""Seconds that reranking may take, unless the reranker says otherwise; then the order stays as it was."""


class Reranker(Protocol):
    """Says how well texts answer a query. A plain `rerank` runs in a private thread, an async one on the loop.

    It may have `timeout: float`, the seconds that it gets instead of 0.5.
    """

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float] | Awaitable[Sequence[float]]:
        """Return a number for each text, higher where it answers better; any scale will do."""
        ...


class Reranked(Layer):
    """A provider whose hits are reranked; a reranker that fails, or takes too long, is left out of that search."""

    def __init__(self, inner: Provider, reranker: Reranker, /) -> None:
        super().__init__(inner)
        if isinstance(reranker, str) or not callable(getattr(reranker, "rerank", None)):
            raise ValueError("rerank must be an object with rerank(query, texts): there are none by name")
        self._rerank: Any = reranker.rerank
        self._timeout = float(getattr(reranker, "timeout", TIMEOUT))
        self._threads = Threads(1, "openproto-rerank")
        self._is_left_out = False

    async def close(self) -> None:
        """Close the inner provider."""
        self._threads.close()
        await super().close()

    async def search(self, query: SearchQuery) -> SearchResults:
        """Return the inner provider's hits, the first of them reranked; scores stay with the places."""
        wider = query.model_copy(update={"limit": min(MAX_SEARCH_LIMIT, max(query.limit, FIRST_HITS))})
        found = await self.inner.search(wider)
        order = await self._order(query.query, found)
        hits = [_placed(found[number], place.score) for number, place in zip(order, found, strict=True)]
        return hits[: query.limit]

    async def context(self, query: ContextQuery, count_tokens: TokenCounter) -> ContextBlock:
        """Return a block of reranked hits."""
        return await Provider.context(self, query, count_tokens)

    async def _order(self, query: str, found: SearchResults) -> Sequence[int]:
        numbers = range(len(found))
        if len(found) < 2:
            return numbers
        texts = [result.memory.content for result in found]
        try:
            async with asyncio.timeout(self._timeout):
                if inspect.iscoroutinefunction(self._rerank):
                    given = await self._rerank(query, texts)
                else:
                    given = await self._threads(self._rerank, query, texts)
            marks = [float(mark) for mark in cast("Sequence[float]", given)]
            if len(marks) != len(found) or any(map(math.isnan, marks)):
                raise ValueError("a reranker must return a number for each text")
        except Exception as error:  # whatever it is, the hits are worth having as they are
            if not self._is_left_out:
                _log.warning("search: the reranker is left out until it answers again (%s)", type(error).__name__)
            self._is_left_out = True
            return numbers
        if self._is_left_out:
            _log.warning("search: the reranker answers again")
        self._is_left_out = False
        return sorted(numbers, key=lambda number: -marks[number])


def _placed(hit: SearchResult, score: float) -> SearchResult:
    """Return the hit with the score of its new place; the difference, which may be negative, is the reranker's part."""
    parts = hit.parts and {**hit.parts, "reranker": score - hit.score}
    return SearchResult(memory=hit.memory, score=score, parts=parts)
