"""The configuration that mem0 is opened with: the caller's, and what mem0 would otherwise choose badly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

Config: TypeAlias = Mapping[str, Any]

_NO_MODEL = {"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9"}}
"""mem0 constructs a language model and an embedder even where nobody calls them; these could reach nobody."""

_LOCAL = ("qdrant", "chroma", "faiss")
_ELSEWHERE = ("host", "url", "client", "api_key")
_SIZELESS = ("chroma", "databricks", "langchain", "neptune", "upstash_vector", "vertex_ai_vector_search")


def complete(config: Config, path: Path, dim: int | None) -> dict[str, Any]:
    """Return `config` with its gaps filled; `dim` is the length of the vectors, None where mem0 makes them itself.

    Left alone, mem0 keeps memories in a folder under the system's temporary one that all programs share, expects
    vectors of 1536 numbers, and writes the texts of memories, deleted ones too, into a history in the home directory.
    """
    store: dict[str, Any] = dict(config.get("vector_store") or {"provider": "qdrant"})
    provider = store.setdefault("provider", "qdrant")
    settings: dict[str, Any] = dict(store.get("config") or {})
    if provider in _LOCAL and not any(settings.get(name) for name in ("path", *_ELSEWHERE)):
        settings["path"] = str(path if provider == "qdrant" else path.with_name(provider))
    if provider == "qdrant" and settings.get("path"):
        settings.setdefault("on_disk", True)
    if provider == "pgvector":
        settings.setdefault("hnsw", False)  # over everybody's memories it finds few of one user's
    dim = dim or _size(config)
    if dim and provider not in _SIZELESS:
        settings.setdefault("embedding_model_dims", dim)
    return {
        "embedder": _NO_MODEL,
        "llm": _NO_MODEL,
        "history_db_path": ":memory:",
        **config,
        "vector_store": {**store, "config": settings},
    }


def local_path(config: Config) -> tuple[str, str] | None:
    """Return the store and its folder where it is one in this process; None where a server keeps order."""
    provider, settings = config["vector_store"]["provider"], config["vector_store"]["config"]
    if provider in _LOCAL and not any(settings.get(name) for name in _ELSEWHERE):
        return provider, settings["path"]
    return None


def _size(config: Config) -> int | None:
    size: int | None = ((config.get("embedder") or {}).get("config") or {}).get("embedding_dims")
    return size
