"""Anthropic's API: messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openproto.integrations.llm.dialect import Dialect, Reply


class Messages(Dialect):
    """`messages`: memories are one more block at the end of `system`, so what is cached before them stays as it is."""

    conversation = "messages"

    def with_memories(self, arguments: Mapping[str, Any], block: str) -> dict[str, Any]:
        """Return the arguments with one more system block."""
        given = arguments.get("system")
        if isinstance(given, str):
            blocks = [{"type": "text", "text": given}] if given else []
        else:
            # A caller may also pass the SDK's own marker for "not given", which is false and holds nothing.
            blocks = list(given) if given else []
        return {**arguments, "system": [*blocks, {"type": "text", "text": block}]}

    def read(self, response: Any, reply: Reply) -> None:
        """Note the text blocks."""
        reply.id = response.id
        reply.parts.extend(block.text for block in response.content if block.type == "text")

    def feed(self, event: Any, reply: Reply) -> None:
        """Note a streaming event."""
        if event.type == "message_start":
            reply.id = event.message.id
        elif event.type == "content_block_delta" and event.delta.type == "text_delta":
            reply.parts.append(event.delta.text)
        elif event.type == "message_stop":
            reply.complete = True
