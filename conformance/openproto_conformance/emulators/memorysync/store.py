"""What MemorySync keeps: facts of end users, which were extracted from texts, and what has become of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

EDITABLE = ("tags", "importance", "metadata", "source", "event_type")


@dataclass(eq=False, slots=True)
class Memory:
    """A fact of an end user; `embedded` says whether a search can find it."""

    id: int
    end_user: str
    text: str
    created_at: float
    updated_at: float
    tags: list[str] | None = None
    source: str | None = None
    event_type: str | None = None
    importance: float | None = None
    metadata: Json | None = None
    embedded: bool = True
    deleted: bool = False
    revisions: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._note("created", [], {}, self.created_at)

    def change(self, changes: Json, now: float) -> list[str]:
        """Apply an edit and return the fields that it changed. Assumed: metadata that is given replaces what was."""
        changed = [name for name in EDITABLE if name in changes and changes[name] != getattr(self, name)]
        diff = {name: {"old": getattr(self, name), "new": changes[name]} for name in changed}
        for name in changed:
            setattr(self, name, changes[name])
        self.updated_at = now
        self._note("updated", changed, diff, now)
        return changed

    def delete(self, now: float) -> None:
        """Delete it softly: it is purged after days of grace, and until then nobody is shown it."""
        self.deleted = True
        self._note("soft_deleted", [], {}, now)

    def answer(self, score: float | None = None) -> Json:
        """Return it as the header plane shows it."""
        return {
            "id": self.id,
            "text": self.text,
            "summary": None,
            "tags": self.tags,
            "source": self.source,
            "event_type": self.event_type,
            "importance": self.importance,
            "metadata": self.metadata,
            "is_summary": False,
            "created_at": moment(self.created_at),
            "updated_at": moment(self.updated_at),
            "score": score,
        }

    def _note(self, event: str, changed: list[str], diff: Json, now: float) -> None:
        revision = {"revision": len(self.revisions), "event": event, "changed_fields": changed, "diff": diff}
        self.revisions.append({**revision, "actor": None, "created_at": moment(now)})


def moment(seconds: float) -> str:
    """Return a time in ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def normal(text: str) -> str:
    """Return what two texts share that are taken for one. Assumed: the vendor compares meanings, and this words."""
    return " ".join(text.casefold().split())
