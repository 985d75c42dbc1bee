"""What a reranker is; `openproto.layers.rerank` puts one into a search."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol


class Reranker(Protocol):
    """Says how well texts answer a query. A plain `rerank` runs in a private thread, an async one on the loop.

    It may have `timeout: float`, the seconds that it gets instead of 0.5.
    """

    def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float] | Awaitable[Sequence[float]]:
        """Return a number for each text, higher where it answers better; any scale will do."""
        ...
