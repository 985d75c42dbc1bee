"""A session of the OpenAI Agents SDK over any provider.

    from openproto.integrations.openai_agents import OpenProtoSession

    session = OpenProtoSession("conversation-1", memory, user_id="ada")
    await Runner.run(agent, "What is on today?", session=session)

Every item is a record under the scope of its session, in the order in which the items came, exactly as the SDK wrote
it. The records are never current: `search` and `context` do not find the history, which the session itself puts into
every prompt. What a conversation should leave behind is for `openproto.integrations.llm` to decide.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from openproto import AsyncMemory, Memory, MemoryRecord, NotFoundError, OpenProtoError
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs
from openproto.integrations.scope_names import scope_segment

with needs("openai-agents"):
    from agents.items import TResponseInputItem
    from agents.memory.session import SessionABC
    from agents.memory.session_settings import SessionSettings, coerce_session_settings, resolve_session_limit

__all__ = ["OpenProtoSession"]

Items: TypeAlias = list[TResponseInputItem]

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_FIELD = "x-openai-agents"
_MOST_IN_ONE_RECORD = 200_000
"""Characters of JSON; a longer item is split, so that a record fits into one request to any server."""


class OpenProtoSession(SessionABC):
    """The history of one conversation.

    Args:
        session_id: Which conversation; the same id continues it, in another process too.
        memory: Where the items are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used
            it.
        user_id: Whose conversation it is; the same session id of another user is another conversation.
        session_settings: The SDK's own, such as the number of items that `get_items` returns at most.
    """

    def __init__(
        self,
        session_id: str,
        memory: AsyncMemory | Memory,
        *,
        user_id: str,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = coerce_session_settings(session_settings or SessionSettings())
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._user_id = user_id
        self._scope = f"openai-agents/{scope_segment(session_id)}"

    async def get_items(self, limit: int | None = None) -> Items:
        """Return the newest `limit` items, or all of them, oldest first."""
        most = resolve_session_limit(limit, self.session_settings)
        return await self._bound.call(self._get(most))

    async def add_items(self, items: Items) -> None:
        """Append the items, in order."""
        if items:
            await self._bound.call(self._add(items))

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item and return it, or None where there is none."""
        return await self._bound.call(self._pop())

    async def clear_session(self) -> None:
        """Remove every item of this session."""
        await self._bound.call(self._memory.delete_all(self._user_id, scope=self._scope))

    async def _get(self, most: int | None) -> Items:
        items: Items = []
        if most == 0:
            return items
        async for item, _ in self._newest_first():
            items.append(item)
            if most is not None and len(items) == most:
                break
        return items[::-1]

    async def _add(self, items: Items) -> None:
        inputs = [one for item in items for one in self._inputs(item)]
        for outcome in await self._memory.add_many(inputs):
            if isinstance(outcome, OpenProtoError):
                raise outcome

    async def _pop(self) -> TResponseInputItem | None:
        async for item, records in self._newest_first():
            try:
                for record in records:
                    await self._memory.delete(record.id, user_id=self._user_id)
            except NotFoundError:
                continue  # somebody else was faster: the item is theirs
            return item
        return None

    def _inputs(self, item: TResponseInputItem) -> Iterable[dict[str, Any]]:
        # As text, because JSON text of ASCII can be stored whatever it spells, NUL characters and lone surrogates too.
        text = json.dumps(item)
        name = secrets.token_hex(8)
        starts = range(0, len(text), _MOST_IN_ONE_RECORD)
        for part, start in enumerate(starts):
            yield {
                "content": f"{self.session_id.strip()[:100] or 'session'}: an item of the conversation",
                "user_id": self._user_id,
                "scope": self._scope,
                "valid_to": _NEVER,
                _FIELD: {
                    "item": name,
                    "part": part,
                    "parts": len(starts),
                    "json": text[start : start + _MOST_IN_ONE_RECORD],
                },
            }

    async def _newest_first(self) -> AsyncIterator[tuple[TResponseInputItem, list[MemoryRecord]]]:
        """Yield each item with its records.

        What is no whole item is left out: one whose parts are still being written or half deleted, and what another
        program left in the scope.
        """
        waiting: dict[str, dict[int, tuple[str, MemoryRecord]]] = {}
        async for record in self._memory.iter(self._user_id, scope=self._scope):
            match record.extensions.get(_FIELD):
                case {"item": str(name), "part": int(part), "parts": int(parts), "json": str(text)}:
                    found = waiting.setdefault(name, {})
                    found[part] = text, record
                    if len(found) == parts:
                        del waiting[name]
                        try:
                            item = json.loads("".join(found[part][0] for part in sorted(found)))
                        except ValueError:
                            continue
                        yield cast(TResponseInputItem, item), [record for _, record in found.values()]
