"""A memory as one of Memsy's events: its text word for word, and everything else as JSON in the event's metadata.

Memsy's language model rewrites texts into memories; a search returns the events together with what it made of them.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from openproto.emulation import Stored
from openproto.stores.compact_json import to_json
from openproto_adapters.memsy.api import Source
from openproto_adapters.memsy.ids import EventId

MAX_CONTENT = 7999
MAX_METADATA = 4096

Kept: TypeAlias = Stored | Literal["deleted"]
"""What is under an idempotency key: a memory, or only that it was deleted."""

_ENVELOPE = "openproto"


def metadata_of(stored: Stored) -> str | None:
    """Return the event's metadata; None where it is more than Memsy takes."""
    text = to_json({_ENVELOPE: stored.to_text()})
    return text if len(text) <= MAX_METADATA else None


def memory_of(actor: str, session: str | None, source: Source) -> Stored | None:
    """Return the memory that was sent as this event; None for an event of another program's."""
    if session is None or source.content is None or not isinstance(source.metadata, dict):
        return None
    if (envelope := source.metadata.get(_ENVELOPE)) is None:
        return None
    id = EventId(actor, session, source.event).id
    return Stored.from_text(envelope, source.content, handle=source.event, id=id)
