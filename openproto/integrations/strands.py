"""A memory store of Strands Agents over any provider.

from openproto.integrations.strands import OpenProtoMemoryStore

store = OpenProtoMemoryStore(AsyncMemory(), user_id="ada", name="ada")
agent = Agent(plugins=[MemoryManager(stores=[store], add_tool_config=True)])
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

from openproto import AsyncMemory, ConflictError, Memory
from openproto.fields import check_whole
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs
from openproto.integrations.scope_names import scope_segment

with needs("strands"):
    from strands.memory import MemoryEntry, MemoryStore
    from strands.memory.extraction.types import ExtractionConfig
    from strands.memory.types import Metadata, SearchOptions

__all__ = ["OpenProtoMemoryStore"]

_FIELD = "x-strands"


class OpenProtoMemoryStore(MemoryStore):
    """Memories of one user under the scope `strands/<name>`.

    Args:
        memory: Where they are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used it.
        user_id: Whose memories they are.
        name: The store's name, by which tools choose it.
        description: What the model reads about the store.
        max_search_results: How many entries a search returns where its caller does not say, 1..100.
        writable: Whether agents may add to it.
        extraction: Strands' configuration of automatic extraction.
    """

    def __init__(
        self,
        memory: AsyncMemory | Memory,
        *,
        user_id: str,
        name: str,
        description: str | None = None,
        max_search_results: int = 10,
        writable: bool = True,
        extraction: ExtractionConfig | bool | None = None,
    ) -> None:
        check_whole(max_search_results=max_search_results)
        self.name = name
        self.description = description
        self.max_search_results = max_search_results
        self.writable = writable
        self.extraction = extraction
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._user_id = user_id
        self._scope = f"strands/{scope_segment(name)}"

    async def search(self, query: str, options: SearchOptions | None = None) -> list[MemoryEntry]:
        """Return what answers the query, best first."""
        limit = (options or {}).get("max_search_results") or self.max_search_results or 10
        found = await self._bound.call(
            self._memory.search(query, self._user_id, scope=self._scope, limit=min(limit, 100))
        )
        return [
            MemoryEntry(
                content=hit.memory.content,
                metadata={**self._metadata(hit.memory.extensions), "id": hit.memory.id, "score": hit.score},
            )
            for hit in found
        ]

    async def add(self, content: str, metadata: Metadata | None = None) -> str:
        """Remember `content` and return its id; extraction, which may write twice, stores it once."""
        # The same words with the same metadata are the same memory, for as long as it has not been deleted.
        known = json.dumps([self.name, content, metadata], sort_keys=True, default=str)
        key = f"strands:{blake2b(known.encode(), digest_size=32).hexdigest()}"
        given: dict[str, Any] = {"user_id": self._user_id, "scope": self._scope, _FIELD.replace("-", "_"): metadata}
        try:
            record = await self._bound.call(self._memory.add(content, idempotency_key=key, **given))
        except ConflictError:
            record = await self._bound.call(self._memory.add(content, **given))
        return record.id

    async def initialize(self) -> None:
        """Open the memory, so that what is wrong with it is known before the agent runs."""
        await self._bound.call(self._memory.capabilities())

    @staticmethod
    def _metadata(extensions: dict[str, Any]) -> dict[str, Any]:
        kept = extensions.get(_FIELD)
        return kept if isinstance(kept, dict) else {}
