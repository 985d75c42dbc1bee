"""The memory service of Google's Agent Development Kit over any provider.

    from openproto.integrations.google_adk import OpenProtoMemoryService

    runner = Runner(..., memory_service=OpenProtoMemoryService(AsyncMemory()))

Every event with a text is a memory of its user, once, however often its session is added; what was deleted stays
deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, cast

from openproto import AsyncMemory, ConflictError, Memory, MemoryRecord, OpenProtoError
from openproto.fields import check_whole
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs
from openproto.integrations.scope_names import scope_segment

with needs("google-adk"):
    from google.adk.events.event import Event
    from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
    from google.adk.memory.memory_entry import MemoryEntry
    from google.adk.sessions.session import Session
    from google.genai import types

__all__ = ["OpenProtoMemoryService"]

_FIELD = "x-google-adk"


class OpenProtoMemoryService(BaseMemoryService):
    """Memories under the scope `google-adk/<app>/<session>` of ADK's user.

    Args:
        memory: Where they are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used it.
        limit: How many memories a search returns at most, 1..100.
    """

    def __init__(self, memory: AsyncMemory | Memory, *, limit: int = 10) -> None:
        check_whole(limit=limit)
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._limit = limit

    async def add_session_to_memory(self, session: Session) -> None:
        """Remember the events of a session that are not remembered yet."""
        await self.add_events_to_memory(
            app_name=session.app_name, user_id=session.user_id, events=session.events, session_id=session.id
        )

    async def add_events_to_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        events: Sequence[Event],
        session_id: str | None = None,
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember the events that are not remembered yet; those without a text are left out."""
        scope = _scope(app_name, session_id)
        items = [
            {
                "content": text,
                "user_id": user_id,
                "scope": scope,
                "idempotency_key": _event_key(app_name, session_id, event.id),
                _FIELD: _kept(event.content, event.author, event.timestamp, custom_metadata),
            }
            for event in events
            if event.content is not None and (text := _text_of(event.content))
        ]
        # An event that was remembered and then deleted, or has grown since, meets its own key.
        await self._bound.call(self._add(items, passed_over=ConflictError))

    async def add_memory(
        self,
        *,
        app_name: str,
        user_id: str,
        memories: Sequence[MemoryEntry],
        custom_metadata: Mapping[str, object] | None = None,
    ) -> None:
        """Remember the entries; raises ValueError for one without a text."""
        items = []
        for entry in memories:
            text = _text_of(entry.content)
            if not text:
                raise ValueError("a memory without a text cannot be found again; give its content a text part")
            metadata = {**entry.custom_metadata, **(custom_metadata or {})}
            kept = _kept(entry.content, entry.author, entry.timestamp, metadata)
            items.append({"content": text, "user_id": user_id, "scope": _scope(app_name), _FIELD: kept})
        await self._bound.call(self._add(items))

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """Return the user's memories of this app that answer the query, best first."""
        if not query.strip():
            return SearchMemoryResponse()
        found = await self._bound.call(self._memory.search(query, user_id, scope=_scope(app_name), limit=self._limit))
        return SearchMemoryResponse(memories=[_entry(hit.memory) for hit in found])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Delete a memory.

        Raises ValueError without an id, because ADK does not say whether that means nothing or everything, and
        NotFoundError for an id that the user does not have.
        """
        if memory_id is None:
            raise ValueError("name the memory to delete: memory_id=")
        await self._bound.call(self._memory.delete(memory_id, user_id=user_id))

    async def _add(self, items: list[dict[str, Any]], passed_over: type[OpenProtoError] | None = None) -> None:
        for outcome in await self._memory.add_many(items):
            if isinstance(outcome, OpenProtoError) and not (passed_over and isinstance(outcome, passed_over)):
                raise outcome


def _scope(app_name: str, session_id: str | None = None) -> str:
    parts = ["google-adk", scope_segment(app_name), *([scope_segment(session_id)] if session_id else [])]
    return "/".join(parts)


def _event_key(*names: str | None) -> str:
    """Return a key that only events of the same app, session, and id share, however long their names are."""
    return f"google-adk:{blake2b(json.dumps(names).encode(), digest_size=32).hexdigest()}"


def _text_of(content: types.Content) -> str:
    return "\n".join(_texts(content)).strip()


def _texts(content: types.Content) -> Iterator[str]:
    for part in content.parts or ():
        if part.text and not part.thought:
            yield part.text


def _kept(
    content: types.Content, author: str | None, timestamp: object, metadata: Mapping[str, object] | None
) -> dict[str, Any]:
    kept: dict[str, Any] = {"content": content.model_dump(mode="json", exclude_none=True), "author": author}
    if isinstance(timestamp, float | int):
        timestamp = datetime.fromtimestamp(timestamp, UTC).isoformat()
    return kept | {"timestamp": timestamp} | ({"metadata": dict(metadata)} if metadata else {})


def _entry(record: MemoryRecord) -> MemoryEntry:
    kept = cast("dict[str, Any]", record.extensions.get(_FIELD) or {})
    content = kept.get("content")
    return MemoryEntry(
        id=record.id,
        content=types.Content.model_validate(content or {"parts": [{"text": record.content}]}),
        author=kept.get("author"),
        timestamp=kept.get("timestamp") or record.created_at.isoformat(),
        custom_metadata=kept.get("metadata") or {},
    )
