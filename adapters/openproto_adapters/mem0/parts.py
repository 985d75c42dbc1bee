"""The two parts of mem0's library that are replaced: what makes vectors, and what remembers deleted texts.

Imports mem0, and is therefore imported where mem0 is, in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeAlias

from mem0.embeddings.base import EmbeddingBase
from mem0.memory.storage import SQLiteManager

Embed: TypeAlias = Callable[[str], list[float]]

current_embed: ContextVar[Embed] = ContextVar("openproto_mem0_embed")
"""What makes vectors for the call in progress: clients that share a library have an embedder each."""


class HandedEmbedder(EmbeddingBase):  # type: ignore[misc]  # mem0 ships no type information
    """Gives mem0 the vectors of the caller's embedder."""

    def embed(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base is annotated as returning nothing
        self, text: str, memory_action: str | None = None
    ) -> list[float]:
        """Return the vector of `text`, whatever it is wanted for."""
        return current_embed.get()(text)


class NoHistory(SQLiteManager):  # type: ignore[misc]  # mem0 ships no type information
    """Keeps no changes: mem0's history holds the texts of deleted memories, and no verb could show it."""

    def __init__(self) -> None:
        super().__init__(":memory:")

    def add_history(self, *args: Any, **kwargs: Any) -> None:
        """Forget a change."""

    def batch_add_history(self, *args: Any, **kwargs: Any) -> None:
        """Forget changes."""
