"""A memory block of LlamaIndex over any provider.

    from llama_index.core.memory import Memory
    from openproto.integrations.llama_index import OpenProtoMemoryBlock

    block = OpenProtoMemoryBlock(AsyncMemory(), user_id="ada")
    agent_memory = Memory.from_defaults(session_id="s1", token_limit=40_000, memory_blocks=[block])

Before each answer LlamaIndex is given what is remembered about what the user says, declared as data; what the user said
is remembered once LlamaIndex drops it from the history that it keeps itself.
"""

from __future__ import annotations

from typing import Any

from openproto import AsyncMemory, Memory, OpenProtoError
from openproto.fields import check_whole
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs
from openproto.integrations.llm.recall import MAX_QUERY, render
from openproto.integrations.scope_names import scope_segment

with needs("llama-index"):
    from llama_index.core.base.llms.types import ChatMessage, MessageRole
    from llama_index.core.bridge.pydantic import PrivateAttr
    from llama_index.core.memory import BaseMemoryBlock

__all__ = ["OpenProtoMemoryBlock"]


class OpenProtoMemoryBlock(BaseMemoryBlock[str]):
    """Memories of one user; what is added stands under the scope `llama-index/<session>`.

    Args:
        memory: Where they are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used it.
        user_id: Whose memories they are.
        token_budget: Tokens that recalled memories may take.
        options: The block's own `name`, `description`, `priority`, and `accept_short_term_memory`.
    """

    user_id: str
    token_budget: int = 500
    _bound: BoundClient = PrivateAttr()

    def __init__(self, memory: AsyncMemory | Memory, *, user_id: str, token_budget: int = 500, **options: Any) -> None:
        check_whole(token_budget=token_budget)
        super().__init__(**{"name": "memories", "user_id": user_id, "token_budget": token_budget, **options})
        self._bound = BoundClient(memory)

    async def _aget(self, messages: list[ChatMessage] | None = None, **block_kwargs: Any) -> str:
        """Return what is remembered about what the user said last, or nothing."""
        said = next((text for message in reversed(messages or ()) if (text := _said(message))), None)
        if said is None:
            return ""
        block = await self._bound.call(
            self._bound.client.context(said[-MAX_QUERY:], self.user_id, token_budget=self.token_budget)
        )
        return render(block.text) if block.text else ""

    async def _aput(self, messages: list[ChatMessage]) -> None:
        """Remember what the user said."""
        items = []
        for message in messages:
            if text := _said(message):
                session = message.additional_kwargs.get("session_id")
                scope = f"llama-index/{scope_segment(str(session))}" if session else "llama-index"
                items.append(
                    {"content": text, "user_id": self.user_id, "scope": scope, "source": {"app": "llama-index"}}
                )
        for outcome in await self._bound.call(self._bound.client.add_many(items)) if items else ():
            if isinstance(outcome, OpenProtoError):
                raise outcome


def _said(message: ChatMessage) -> str:
    return (message.content or "").strip() if message.role == MessageRole.USER else ""
