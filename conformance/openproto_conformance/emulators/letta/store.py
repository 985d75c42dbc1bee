"""Archives and passages, and what they look like on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

Json: TypeAlias = dict[str, Any]

HANDLES = ("openai/text-embedding-3-small", "openai/text-embedding-3-large", "openai/text-embedding-ada-002")
"""The embedding models that the server has when it knows a key of OpenAI's."""

_ORGANIZATION = "org-00000000-0000-4000-8000-000000000000"
_ACTOR = "user-00000000-0000-4000-8000-000000000000"


@dataclass(slots=True)
class Passage:
    """A text in an archive."""

    text: str
    created_at: datetime
    written_at: datetime
    metadata: Json = field(default_factory=dict)
    tags: list[str] | None = None
    id: str = field(default_factory=lambda: f"passage-{uuid4()}")


@dataclass(slots=True)
class Archive:
    """A collection of passages, in the order in which they were written."""

    name: str
    description: str | None
    handle: str | None
    created_at: datetime
    updated_at: datetime
    id: str = field(default_factory=lambda: f"archive-{uuid4()}")
    passages: dict[str, Passage] = field(default_factory=dict)


def new_passage(asked: Mapping[str, Any], now: datetime) -> Passage:
    """Return the passage that a request asks for; a ValueError where its date is none."""
    given = asked.get("created_at")
    created_at = datetime.fromisoformat(given) if given else now
    tags = asked.get("tags")
    return Passage(
        # As PostgreSQL wants it.
        text=asked["text"].replace("\0", ""),
        created_at=(created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC)).astimezone(UTC),
        written_at=now,
        metadata=asked.get("metadata") or {},
        tags=None if tags is None else [*set(tags)],
    )


def archive_answer(archive: Archive) -> Json:
    """Return an archive."""
    return {
        **_row(archive.created_at, archive.updated_at),
        "id": archive.id,
        "name": archive.name,
        "description": archive.description,
        "vector_db_provider": "native",
        "embedding_config": _embedding_config(archive),
        "metadata": None,
    }


def passage_answer(archive: Archive, passage: Passage, dimensions: int) -> Json:
    """Return a passage with a vector of so many numbers."""
    return {
        **_row(passage.created_at, passage.written_at),
        "id": passage.id,
        "archive_id": archive.id,
        "text": passage.text,
        "metadata": passage.metadata,
        "tags": passage.tags,
        "is_deleted": False,
        "source_id": None,
        "file_id": None,
        "file_name": None,
        "embedding": [0.015625, *[0.0] * (dimensions - 1)] if archive.handle else None,
        "embedding_config": _embedding_config(archive),
    }


def _row(created_at: datetime, updated_at: datetime) -> Json:
    return {
        "created_by_id": _ACTOR,
        "last_updated_by_id": _ACTOR,
        "created_at": _moment(created_at),
        "updated_at": _moment(updated_at),
        "organization_id": _ORGANIZATION,
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _embedding_config(archive: Archive) -> Json | None:
    if archive.handle is None:
        return None
    return {
        "embedding_endpoint_type": "openai",
        "embedding_endpoint": "https://api.openai.com/v1",
        "embedding_model": archive.handle.partition("/")[2],
        "embedding_dim": 1536,
        "embedding_chunk_size": 300,
        "handle": archive.handle,
        "batch_size": 32,
        "azure_endpoint": None,
        "azure_version": None,
        "azure_deployment": None,
    }
