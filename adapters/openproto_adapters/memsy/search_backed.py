"""The memories of a client without a file: what Memsy shows of the events that were sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

from openproto.emulation import Recent, Stored
from openproto.errors import ProviderUnavailableError
from openproto_adapters.memsy.api import MOST_RANKED, Api, Hit
from openproto_adapters.memsy.events import Kept, memory_of
from openproto_adapters.memsy.ids import EventId

MOST_SENT = 1000
"""How many memories are remembered here that Memsy may not show yet."""

_ANY_QUERY = "what is known"


class SearchBacked:
    """Memories as searches in their sessions show them, which cannot be changed."""

    needs_texts: ClassVar[bool] = True

    def __init__(self, api: Api) -> None:
        self._api = api
        self._sent: Recent[tuple[str, str], Stored] = Recent(MOST_SENT)

    async def keep(self, sent: Sequence[Stored]) -> Sequence[Kept]:
        """Remember what has been sent for as long as Memsy may not show it."""
        for stored in sent:
            own = EventId.of(stored.record.id)
            self._sent.put((own.token, own.session), stored)
        return sent

    async def of_key(self, own: EventId) -> Kept | None:
        """Return the first memory that was added under a key."""
        found = await self._of_session(own)
        return min(found, key=lambda stored: stored.record.created_at, default=self._sent.get((own.token, own.session)))

    async def get(self, own: EventId) -> Stored | None:
        """Return the memory of that event: as Memsy shows it, or as it was sent while Memsy is not done with it."""
        found = await self._of_event(own)
        if found is not None:
            return found
        status = (await self._api.status([own.event])).get(own.event)
        if status == "done" and (found := await self._of_event(own)) is not None:
            return found  # processed between the two questions
        sent = self._sent.get((own.token, own.session))
        if sent is not None and sent.handle == own.event:
            # Processed, and yet not found: the language model has made nothing of it.
            return sent.changed(status="failed" if status == "done" else status or "queued")
        if status == "queued":
            raise ProviderUnavailableError("Memsy has not processed this memory yet; try again soon")
        return None

    async def of_hits(self, actor: str, hits: Sequence[Hit]) -> Mapping[str, Stored]:
        """Return the memories that hits are about, by event; what other programs sent is passed over."""
        found = (memory_of(actor, hit.session, source) for hit in hits for source in hit.sources)
        return {stored.handle: stored for stored in found if stored is not None}

    async def scan(self, actor: str, until: datetime | None) -> AsyncGenerator[Stored, None]:
        """Yield nothing: Memsy's own listing returns neither what the events said nor what was sent with them."""
        nothing: Sequence[Stored] = ()
        for stored in nothing:
            yield stored

    async def _of_event(self, own: EventId) -> Stored | None:
        return next((stored for stored in await self._of_session(own) if stored.handle == own.event), None)

    async def _of_session(self, own: EventId) -> Sequence[Stored]:
        hits = await self._api.search(_ANY_QUERY, own.token, MOST_RANKED, session=own.session, texts=True)
        # An older server ignores the session, and memories of no session are always among the hits.
        hits = [hit for hit in hits if hit.session == own.session]
        return [*(await self.of_hits(own.token, hits)).values()]
