"""Where a client's memories are: in a file, or only in what Memsy's searches show."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from openproto.emulation import Stored
from openproto_adapters.memsy.api import Hit
from openproto_adapters.memsy.ids import EventId

Kept: TypeAlias = Stored | Literal["deleted"]


class Backing(Protocol):
    """What keeps the memories whose texts are events at Memsy."""

    needs_texts: bool
    """Whether it wants searches to say what the events said."""

    async def open(self) -> None:
        """Acquire what the memories are kept in."""

    async def close(self) -> None:
        """Release it."""

    async def keep(self, sent: Sequence[Stored]) -> Sequence[Kept]:
        """Keep what has been sent, and return what is kept in its place: of two with one key, the first."""
        ...

    async def of_key(self, own: EventId) -> Kept | None:
        """Return the memory that was added under a key, or that it was deleted."""
        ...

    async def get(self, own: EventId) -> Stored | None:
        """Return the memory of that id."""
        ...

    async def of_hits(self, actor: str, hits: Sequence[Hit]) -> Mapping[str, Stored]:
        """Return the memories that hits are about, by event."""
        ...

    def scan(self, actor: str, until: datetime | None) -> AsyncGenerator[Stored, None]:
        """Yield a user's memories, newest first, as far as they can be listed."""
        ...
