"""What is asked of Memsy, through its own async client: checked answers, typed errors, and a bound on what runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from openproto.emulation import reading
from openproto.errors import ProviderUnavailableError
from openproto.http_status import unexpected_response
from openproto.models import Status
from openproto_adapters.memsy.errors import VENDOR, as_protocol_error
from openproto_adapters.memsy.ids import EventId, is_event

if TYPE_CHECKING:
    from memsy import AsyncMemsyClient as Client
    from memsy import SearchResult

P = ParamSpec("P")
R = TypeVar("R")

MOST_RANKED = 100
"""The most results of one search."""

_KIND = "user_message"
_MOST_IDS = 500
_CLOSE_TIMEOUT = 0.5
_NOBODY = "openproto"


class Source(NamedTuple):
    """An event that a memory was made of: its text and its metadata as far as the search returns them."""

    event: str
    content: str | None
    metadata: Any


class Hit(NamedTuple):
    """A memory of Memsy's that a search found, and what it was made of."""

    score: float
    session: str | None
    sources: Sequence[Source]


class Api:
    """The calls of one client, `width` of them at once: its connection pool refuses what waits for long."""

    def __init__(self, client: Client, width: int) -> None:
        self._client = client
        self._slots = asyncio.Semaphore(width)
        self._is_closed = False

    async def check(self) -> None:
        """Return if Memsy works and accepts the key; its own health check wants none."""
        await self._call(self._client.health)
        await self._call(self._client.memories.list, actor_id=_NOBODY, limit=1)

    async def ingest(self, events: Sequence[tuple[EventId, str, str | None]]) -> list[str]:
        """Send texts with their metadata, and return the ids of their events in order."""
        from memsy import EventPayload

        payloads = [
            EventPayload(own.token, own.session, _KIND, content, metadata=metadata) for own, content, metadata in events
        ]
        ids = (await self._call(self._client.ingest, payloads)).event_ids
        if not isinstance(ids, list) or len(ids) != len(events) or not all(map(is_event, ids)):
            raise unexpected_response(VENDOR)
        return ids

    async def search(
        self, query: str, actor: str, count: int, *, session: str | None = None, texts: bool = False
    ) -> list[Hit]:
        """Return the best memories of one actor, because without one Memsy searches all; `texts` adds the events."""
        answer = await self._call(
            self._client.search, query, actor_id=actor, session_id=session, limit=count, include_source_events=texts
        )
        with reading(VENDOR):
            return [_hit(result) for result in answer.results]

    async def status(self, events: Collection[str]) -> dict[str, Status]:
        """Return how far each event is; one that Memsy does not mention is missing."""
        ids = list(events)
        found: dict[str, Status] = {}
        for start in range(0, len(ids), _MOST_IDS):
            answer = await self._call(self._client.status, ids[start : start + _MOST_IDS])
            lists: dict[Status, Any] = {
                "queued": answer.pending_ids,
                "done": answer.completed_ids,
                "failed": answer.failed_ids,
            }
            for status, named in lists.items():
                if not isinstance(named, list):
                    raise unexpected_response(VENDOR)
                found |= {id: status for id in named if isinstance(id, str)}
        return found

    async def close(self) -> None:
        """Close the connections, and wait for none that hangs."""
        self._is_closed = True
        with contextlib.suppress(Exception):  # whatever a broken connection still has to say: it is gone
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._client.close()

    async def _call(self, function: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        async with self._slots:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                if self._is_closed:
                    raise ProviderUnavailableError(
                        "the client was closed while this call was running; use an open one"
                    ) from error
                raise as_protocol_error(error) from error


def _hit(result: SearchResult) -> Hit:
    metadata = {entry["event_id"]: entry.get("metadata") for entry in result.source_metadata}
    texts = {event.event_id: event.content for event in result.source_events}
    events = dict.fromkeys([*result.source_event_ids, *metadata, *texts])
    return Hit(
        score=float(result.score),
        session=result.session_id,
        sources=[Source(event, texts.get(event), metadata.get(event)) for event in events if is_event(event)],
    )
