"""The memories of a client with a file: the file says what there is, Memsy how far it is with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar

from openproto.emulation import Recent, Stored, no_such_memory
from openproto_adapters.memsy.api import Api, Hit
from openproto_adapters.memsy.events import Kept
from openproto_adapters.memsy.ids import EventId
from openproto_adapters.memsy.records import Records

TOGETHER = 100
"""How many more events are asked for when one is, so that a caller who waits for many asks once."""

MOST_WAITING = 10_000


class FileBacked:
    """Memories in `records`, whose texts are events at Memsy."""

    needs_texts: ClassVar[bool] = False
    """Whether searches are to return what the events said."""

    def __init__(self, api: Api, records: Records) -> None:
        self._api = api
        self._records = records
        self._waiting: Recent[str, bool] = Recent(MOST_WAITING)

    async def keep(self, sent: Sequence[Stored]) -> Sequence[Kept]:
        """Keep what has been sent, and return what is kept: of two processes with one key, both get the first one's."""
        kept = await self._records.keep(sent)
        for stored in sent:
            self._waiting.put(stored.handle, True)
        return kept

    async def of_key(self, own: EventId) -> Kept | None:
        """Return the memory that was added under a key, or that it was deleted."""
        return await self._records.get(own.token, own.session)

    async def get(self, own: EventId) -> Stored | None:
        """Return the memory with the id of that id."""
        kept = await self._records.get(own.token, own.session)
        if not isinstance(kept, Stored) or kept.record.id != own.id:
            return None
        return (await self._settled([kept]))[0]

    async def of_hits(self, actor: str, hits: Sequence[Hit]) -> Mapping[str, Stored]:
        """Return the memories that hits are about, by event; what the file does not know is passed over."""
        return await self._records.of_events({source.event for hit in hits for source in hit.sources})

    async def scan(self, actor: str, until: datetime | None) -> AsyncGenerator[Stored, None]:
        """Yield the actor's memories, newest first."""
        last = None
        while page := await self._records.page(actor, until, last):
            for stored in await self._settled(page):
                yield stored
            last = page[-1]

    async def replace(self, old: Stored, new: Stored) -> Stored:
        """Change the file; a new text becomes a new event, in place of the one before."""
        record = new.record
        if record.content != old.record.content:
            own = EventId.of_key(record.user_id, f"{record.id} {record.updated_at}")
            (event,) = await self._api.ingest([(own, record.content, None)])
            new = replace(new.changed(status="queued"), handle=event)
        if not await self._records.replace(new):
            raise no_such_memory()
        return new

    async def remove(self, stored: Stored) -> bool:
        """Remove the memory from the file, but for its key."""
        return await self._records.remove(stored)

    async def _settled(self, found: Sequence[Stored]) -> Sequence[Stored]:
        """Return memories with the status they have now, which is asked for until Memsy has ended with them."""
        waiting = {stored.handle for stored in found if stored.record.status == "queued"}
        if not waiting:
            return found
        known = await self._api.status(waiting.union(event for event, _ in self._waiting.items()[:TOGETHER]))
        ended = {event: status for event, status in known.items() if status != "queued"}
        if ended:
            await self._records.settle(ended)
        for event in ended:
            self._waiting.pop(event)
        return [stored.changed(status=ended.get(stored.handle, stored.record.status)) for stored in found]
