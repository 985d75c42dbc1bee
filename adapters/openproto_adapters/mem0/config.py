"""The configuration that mem0 is opened with: the caller's, and what mem0 would otherwise choose badly."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from openproto.errors import InvalidRequestError

Config: TypeAlias = Mapping[str, Any]

_NO_MODEL = {"provider": "openai", "config": {"api_key": "unused", "openai_base_url": "http://127.0.0.1:9"}}
"""mem0 constructs a language model and an embedder even where they are never called; these reach no server."""

_LOCAL = ("qdrant", "chroma", "faiss")
_ELSEWHERE = ("host", "url", "client", "api_key")
_SIZELESS = ("chroma", "databricks", "langchain", "neptune", "upstash_vector", "vertex_ai_vector_search")


def as_mapping(config: Config | BaseModel | None) -> Config:
    """Return a configuration as a mapping; of mem0's `MemoryConfig` only what was set, and not its default folder."""
    if not isinstance(config, BaseModel):
        return dict(config or {})
    given = config.model_dump(exclude_unset=True, warnings=False)
    store = given.get("vector_store") or {}
    settings = store.get("config") or {}
    if settings.get("path") == f"/tmp/{store.get('provider', 'qdrant')}":  # noqa: S108 - which is what mem0 writes
        del settings["path"]
    return given


def check_names(config: Config, known: type[BaseModel]) -> None:
    """Raise InvalidRequestError for a name that mem0's configuration does not have, and would be silent about."""
    for name, value in config.items():
        if name not in known.model_fields:
            raise _unknown_name(name, known.model_fields)
        part = known.model_fields[name].annotation
        if isinstance(value, Mapping) and isinstance(part, type) and issubclass(part, BaseModel):
            check_names(value, part)


@contextmanager
def explained() -> Iterator[None]:
    """Raise InvalidRequestError where mem0 refuses its configuration, with the reason and without the values."""
    try:
        yield
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False, include_context=False)
        reasons = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise InvalidRequestError(f"config: mem0 does not take it, and must be given other values: {reasons}") from None
    except TypeError as error:
        # Of a part's settings that no model checks, the constructor of the part says which name it does not know.
        if match := re.search(r"unexpected keyword argument '(\w+)'", str(error)):
            raise InvalidRequestError(f"config: mem0 knows no setting {match[1]!r}; look at its guide") from error
        raise


def _unknown_name(name: str, known: Mapping[str, object]) -> InvalidRequestError:
    near = get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; it knows: {', '.join(known)}"
    return InvalidRequestError(f"config: mem0 knows no {name!r}{hint}")


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
