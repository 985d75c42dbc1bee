"""What the platform keeps, and how it changes with time: the index and the queue lag behind what was accepted.

Nothing runs in the background: what a search shows, and what a queued deletion has reached, is computed from the clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeAlias
from uuid import uuid4

Json: TypeAlias = dict[str, Any]

ENTITIES = ("user_id", "agent_id", "app_id", "run_id")


class Version(NamedTuple):
    """A memory as it was written at a moment."""

    at: float
    text: str
    metadata: Json | None


@dataclass(eq=False, slots=True)
class Memory:
    """A memory; `versions` are what it has been, oldest first, and `gone_at` is when it is no more."""

    entities: Mapping[str, str | None]
    versions: list[Version]
    expiration_date: str | None = None
    gone_at: float | None = None
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def text(self) -> str:
        """What it says now."""
        return self.versions[-1].text

    def is_there(self, now: float) -> bool:
        """Say whether it has not been deleted yet."""
        return self.gone_at is None or now < self.gone_at

    def is_listed(self, now: float) -> bool:
        """Say whether it has been processed, and not been deleted yet."""
        return self.is_there(now) and self.versions[0].at <= now

    def is_expired(self, now: float) -> bool:
        """Say whether the day of its expiration is over, in UTC."""
        return self.expiration_date is not None and self.expiration_date < moment(now)[:10]

    def indexed(self, now: float, lag: float) -> Version | None:
        """Return what the index has of it. Assumed: it shows a change, and a deletion too, after the lag."""
        if self.gone_at is not None and now >= self.gone_at + lag:
            return None
        return next((version for version in reversed(self.versions) if now >= version.at + lag), None)


@dataclass(eq=False, slots=True)
class Event:
    """Something that was queued at `created_at` and is over at `done_at`."""

    kind: str
    created_at: float
    done_at: float
    payload: Json
    results: list[Json]
    fails: bool = False
    id: str = field(default_factory=lambda: str(uuid4()))

    def status(self, now: float) -> str:
        """Return how far it is."""
        if now >= self.done_at:
            return "FAILED" if self.fails else "SUCCEEDED"
        return "PENDING" if now < (self.created_at + self.done_at) / 2 else "RUNNING"

    def answer(self, now: float) -> Json:
        """Return it as it is answered."""
        over = now >= self.done_at
        told: Json = {
            "id": self.id,
            "event_type": self.kind,
            "status": self.status(now),
            "payload": self.payload,
            "metadata": None,
            "results": self.results if over and not self.fails else [],
            "created_at": moment(self.created_at),
            "updated_at": moment(min(now, self.done_at)),
            "error": "processing failed" if over and self.fails else None,
        }
        return told | ({"completed_at": moment(self.done_at)} if over else {})


def answer(memory: Memory, version: Version, *, run: str) -> Json:
    """Return a memory as it is answered, its run id under the name that this endpoint has for it."""
    entities = {name: value for name, value in memory.entities.items() if name != "run_id"}
    return {
        "id": memory.id,
        "memory": version.text,
        **entities,
        run: memory.entities["run_id"],
        "metadata": version.metadata,
        "categories": [],
        "expiration_date": memory.expiration_date,
        "created_at": moment(memory.versions[0].at),
        "updated_at": moment(version.at),
    }


def moment(seconds: float) -> str:
    """Return a time as the platform writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
