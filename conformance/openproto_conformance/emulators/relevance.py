"""How well a text answers a query at a vendor that knows meanings: by its words, and by an embedder if one is here."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

from openproto.embedding import LocalEmbedder
from openproto_conformance.emulators.similarity import similarity


def relevance(query: str, text: str) -> float:
    """Return a score in [0, 1]. Assumed: words and meaning count alike."""
    words = similarity(query, text)
    if find_spec("wordllama") is None:
        return words
    return (words + min(1.0, max(0.0, float(_unit(query) @ _unit(text))))) / 2


@cache
def _embedder() -> LocalEmbedder:
    embedder = LocalEmbedder()
    embedder.open()
    return embedder


@lru_cache(maxsize=20_000)
def _unit(text: str) -> Any:
    vector = _embedder().embed([text])[0]
    length = float((vector @ vector) ** 0.5)
    return vector / length if length else vector
