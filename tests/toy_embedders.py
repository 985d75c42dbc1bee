"""An embedder for tests of plumbing, which can be held up, counts what it embeds, and refuses some texts."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from functools import lru_cache

from openproto import PayloadTooLargeError


class HashEmbedder:
    """Vectors that depend on the words alone: texts of the same words lie near each other."""

    def __init__(self, dim: int = 16, model: str = "", *, text_weight: float = 0.5, center_query: bool = False) -> None:
        self.dim = dim
        self.model = model or f"hash-{dim}"
        self.text_weight = text_weight
        self.center_query = center_query
        self.texts: list[str] = []
        self.opened = self.closed = 0
        self.refuses = ""
        """A text with this in it is refused."""
        self.busy, self.go = threading.Event(), threading.Event()
        self.go.set()

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.busy.set()
        assert self.go.wait(20)
        if self.refuses and any(self.refuses in text for text in texts):
            raise PayloadTooLargeError("the embedder refuses this text")
        self.texts += texts
        return [self._embed(text) for text in texts]

    def _embed(self, text: str) -> list[float]:
        total = [0.0] * self.dim
        for word in set(text.lower().split()[:200]):
            total = [x + y for x, y in zip(total, _noise(f"{self.model} {word}", self.dim), strict=True)]
        return total


@lru_cache(maxsize=2000)
def _noise(seed: str, dim: int) -> Sequence[float]:
    """Return numbers off centre on purpose: real word vectors crowd into one direction too."""
    noise = random.Random(seed)
    return [noise.gauss(0.3, 1.0) for _ in range(dim)]
