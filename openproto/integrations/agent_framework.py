"""A context provider of Microsoft's Agent Framework over any provider.

    from openproto.integrations.agent_framework import OpenProtoContextProvider

    agent = Agent(client=..., context_providers=[OpenProtoContextProvider(AsyncMemory(), user_id="ada")])

Before a run it adds what is remembered of the user as instructions, declared as data; after it, what the user said is
remembered. A memory that is slow or down leaves the run alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from openproto import AsyncMemory, Memory, OpenProtoError
from openproto.fields import check_seconds, check_whole
from openproto.integrations.bound_client import BoundClient
from openproto.integrations.extras import needs
from openproto.integrations.llm.recall import MAX_QUERY, render
from openproto.integrations.scope_names import scope_segment

with needs("agent-framework"):
    from agent_framework import AgentSession, ContextProvider, Message, SessionContext, SupportsAgentRun

__all__ = ["OpenProtoContextProvider"]

_log = logging.getLogger(__name__)


class OpenProtoContextProvider(ContextProvider):
    """Recall before a run, capture after it.

    Args:
        memory: Where memories are kept. A `Memory` serves every event loop, an `AsyncMemory` the one that first used
            it.
        user_id: Whose memories they are.
        source_id: The framework's name for this provider.
        token_budget: Tokens that recalled memories may take.
        timeout: Seconds that recalling may take.
    """

    def __init__(
        self,
        memory: AsyncMemory | Memory,
        *,
        user_id: str,
        source_id: str = "openproto",
        token_budget: int = 500,
        timeout: float = 2.0,
    ) -> None:
        super().__init__(source_id)
        check_whole(token_budget=token_budget)
        check_seconds(timeout=timeout)
        self._bound = BoundClient(memory)
        self._memory = self._bound.client
        self._user_id = user_id
        self._token_budget = token_budget
        self._timeout = timeout

    async def before_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Add what is remembered of the user and answers what the user says."""
        said = _said(context.input_messages)
        if not said:
            return
        try:
            async with asyncio.timeout(self._timeout):
                block = await self._bound.call(
                    self._memory.context(said[-MAX_QUERY:], self._user_id, token_budget=self._token_budget)
                )
        except (OpenProtoError, TimeoutError) as error:
            _log.warning("nothing was recalled for this run: %s", getattr(error, "message", "no answer in time"))
            return
        if block.text:
            context.extend_instructions(self.source_id, render(block.text))

    async def after_run(
        self, *, agent: SupportsAgentRun, session: AgentSession, context: SessionContext, state: dict[str, Any]
    ) -> None:
        """Remember what the user said."""
        said = _said(context.input_messages)
        if not said:
            return
        scope = f"agent-framework/{scope_segment(context.session_id)}" if context.session_id else "agent-framework"
        try:
            await self._bound.call(
                self._memory.add(said, user_id=self._user_id, scope=scope, source={"app": "agent-framework"})
            )
        except OpenProtoError as error:
            _log.warning("what the user said was not remembered: %s", error.message)


def _said(messages: Sequence[Message]) -> str:
    return "\n".join(message.text for message in messages if message.role == "user" and message.text).strip()
