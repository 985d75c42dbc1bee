"""Events, the memories that form out of them, and how both look on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

Json: TypeAlias = dict[str, Any]

ORG = "emulated-org"
SOURCE_METADATA = 5
"""The most events whose metadata a search result carries."""


@dataclass(eq=False, slots=True)
class Event:
    """What was ingested; `ends_at` is when it is processed."""

    actor: str
    session: str
    kind: str
    content: str
    metadata: str | None
    ts: str
    ingested_at: float
    ends_at: float
    fails: bool
    id: str = field(default_factory=lambda: uuid4().hex)

    def status(self, now: float) -> str:
        """Return `pending`, and in the end `completed` or `failed`. Assumed: the words of the map of statuses."""
        if now < self.ends_at:
            return "pending"
        return "failed" if self.fails else "completed"


@dataclass(eq=False, slots=True)
class Memory:
    """What formed out of an event."""

    text: str
    event: Event
    strength: float = 1.0
    recall_count: int = 0
    last_recalled_at: float | None = None
    id: str = field(default_factory=lambda: str(uuid4()))


def moment(seconds: float) -> str:
    """Return a moment as JSON has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def result(memory: Memory, score: float, read: Mapping[str, Any] | None, *, events: bool) -> Json:
    """Return a result of a search; `read` is the metadata of the event where that is a JSON object."""
    event = memory.event
    metadata: Json = {
        "type": "fact",
        "kind": "semantic",
        "strength": memory.strength,
        "confidence": 0.9,
        "observed_at": event.ts,
        "session_id": event.session,
        "source_event_ids": [event.id],
    }
    if event.metadata is not None:
        entry = {"raw": event.metadata} if read is None else {"metadata": read}
        metadata["source_metadata"] = [{"event_id": event.id, **entry}][:SOURCE_METADATA]
    if events:
        metadata["source_events"] = [
            {"event_id": event.id, "kind": event.kind, "content": event.content, "ts": event.ts}
        ]
    return {"id": memory.id, "content": memory.text, "score": score, "metadata": metadata}


def item(memory: Memory) -> Json:
    """Return a memory as the console shows it, which does not say what the event said."""
    event, formed = memory.event, moment(memory.event.ends_at)
    recalled = memory.last_recalled_at
    return {
        "memory_id": memory.id,
        "org_id": ORG,
        "scope": {"level": "actor", "actor_id": event.actor},
        "type": "fact",
        "kind": "semantic",
        "memory_kind": "semantic",
        "status": "active",
        "text": memory.text,
        "confidence": 0.9,
        "strength": memory.strength,
        "recall_count": memory.recall_count,
        "decay_half_life_days": 30.0,
        "pinned": False,
        "tags": [],
        "entity_refs": [],
        "source_event_ids": [event.id],
        "source_urls": [],
        "last_recalled_at": None if recalled is None else moment(recalled),
        "observed_at": event.ts,
        "created_at": formed,
        "updated_at": formed,
    }
