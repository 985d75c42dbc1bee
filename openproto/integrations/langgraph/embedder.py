"""The embedding function of a LangGraph index as an embedder of a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from langgraph.store.base import IndexConfig, ensure_embeddings


class IndexEmbedder:
    """`AsyncMemory("sqlite", embedder=IndexEmbedder(index))` embeds as `index["embed"]` does and ranks by cosine alone.

    Args:
        index: LangGraph's index configuration: `embed` (LangChain embeddings, a function, or a coroutine function) and
            `dims`.
        model: What the store remembers the vectors by; another model cannot open it.
    """

    text_weight = 0.0
    center_query = False

    def __init__(self, index: IndexConfig, model: str = "langgraph-index") -> None:
        self.model = model
        if "dims" not in index or "embed" not in index:
            raise ValueError("an index wants dims and embed: how long its vectors are, and what makes them")
        self.dim = index["dims"]
        self._embeddings = ensure_embeddings(index["embed"])

    def open(self) -> None:
        """Do nothing: the function is there already."""

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return a vector for each text; called in a private thread."""
        try:
            return self._embeddings.embed_documents(list(texts))
        except NotImplementedError:  # LangChain's embeddings that are asynchronous alone
            return asyncio.run(self._embeddings.aembed_documents(list(texts)))
