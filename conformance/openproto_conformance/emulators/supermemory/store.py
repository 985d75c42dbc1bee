"""What Supermemory keeps, and how it changes with time: documents are processed, and memories form out of them.

Nothing runs in the background: what has become of a document is computed from the clock when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any
from uuid import uuid4

STEPS = ("queued", "extracting", "chunking", "embedding", "indexing")
CHUNK_SIZE = 2000

_order = count()


@dataclass(eq=False, slots=True)
class Memory:
    """A version of a fact; it exists from `formed_at` on."""

    text: str
    formed_at: float
    parent: Memory | None = None
    forgotten: bool = False
    retired_at: float | None = None
    id: str = field(default_factory=lambda: f"mem_{uuid4().hex}")
    order: int = field(default_factory=lambda: next(_order))

    @property
    def version(self) -> int:
        """Its number in the chain of versions."""
        return 1 if self.parent is None else self.parent.version + 1

    def is_latest(self, now: float) -> bool:
        """Say whether no newer version has formed."""
        return self.retired_at is None or now < self.retired_at


@dataclass(eq=False, slots=True)
class Document:
    """A document; `texts` is what has been added under its id, in order."""

    id: str
    created_at: float
    updated_at: float
    accepted_at: float
    lag: float
    texts: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    published: str | None = None
    fails: bool = False
    learns: bool = True
    instant: bool = False
    memories: list[Memory] = field(default_factory=list)
    order: int = field(default_factory=lambda: next(_order))

    @property
    def content(self) -> str:
        """The canonical text. Assumed: texts added under one id follow each other on lines of their own."""
        return "\n".join(self.texts)

    @property
    def _dreams_until(self) -> float:
        # Assumed: the document says "minutes later" unless dreaming is instant, and not how many.
        return self.accepted_at + self.lag * (2 if self.instant else 4)

    def take(self, text: str, now: float, *, replaces: bool, fails: bool) -> None:
        """Accept a text: memories form out of it later, and retire those that it `replaces`.

        Assumed: one memory for each text; a replacement is the next version of the document's latest memory.
        """
        self.published = self.published_at(now) if self.texts else None
        self.texts = [text] if replaces else [*self.texts, text]
        self.accepted_at, self.fails = now, fails
        if not self.learns:
            return
        retired = [memory for memory in self.memories if memory.retired_at is None] if replaces else []
        for memory in retired:
            memory.retired_at = self._dreams_until
        self.memories.append(Memory(text, self._dreams_until, retired[-1] if retired else None))

    def status(self, now: float) -> str:
        """Return how far it is processed."""
        age = now - self.accepted_at
        if age < self.lag:
            return STEPS[int(age / self.lag * len(STEPS))]
        return "failed" if self.fails else "done"

    def dreaming_status(self, now: float) -> str:
        """Return whether its memories are still to form."""
        return "dreaming" if self.learns and not self.fails and now < self._dreams_until else "done"

    def published_at(self, now: float) -> str | None:
        """Return the text that is listed and searched: that of the last time it was done."""
        return self.content if self.status(now) == "done" else self.published

    def chunks(self, now: float) -> list[str]:
        """Return its source passages. Assumed: so many characters each."""
        text = self.published_at(now) or ""
        return [text[start : start + CHUNK_SIZE] for start in range(0, len(text), CHUNK_SIZE)]

    def formed(self, now: float) -> list[Memory]:
        """Return the memories that have formed; those of a document that failed never do."""
        return [] if self.fails else [memory for memory in self.memories if memory.formed_at <= now]

    def recalled(self, now: float, *, forgotten: bool = False) -> list[Memory]:
        """Return the latest memories, without those that were forgotten unless they are wanted too."""
        return [one for one in self.formed(now) if one.is_latest(now) and (forgotten or not one.forgotten)]


@dataclass(eq=False, slots=True)
class Namespace:
    """Documents by id, and settings. Assumed: it exists from the first write on."""

    created_at: float
    updated_at: float
    supporting_context: str | None = None
    documents: dict[str, Document] = field(default_factory=dict)
    buckets: dict[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid4().hex)

    def memories(self, now: float) -> Iterator[tuple[Document, Memory]]:
        """Yield every memory that has formed, with the document that it came from."""
        for document in self.documents.values():
            for memory in document.formed(now):
                yield document, memory


def moment(seconds: float) -> str:
    """Return a time as the document wants it: ISO 8601, UTC, ending in Z."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
