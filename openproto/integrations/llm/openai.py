"""OpenAI's two APIs: chat completions and responses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from openproto.integrations.llm.dialect import Dialect, Reply, look


class ChatCompletions(Dialect):
    """`chat.completions`: memories are a separate message after the system messages; the first choice counts."""

    conversation = "messages"

    def with_memories(self, arguments: Mapping[str, Any], block: str) -> dict[str, Any]:
        """Return the arguments with one more system message, or developer message where the caller's are that."""
        messages = list(arguments[self.conversation])
        roles = [look(message, "role") for message in messages]
        leading = list(takewhile(("system", "developer").__contains__, roles))
        messages.insert(len(leading), {"role": leading[-1] if leading else "system", "content": block})
        return {**arguments, self.conversation: messages}

    def read(self, response: Any, reply: Reply) -> None:
        """Note the first choice."""
        reply.id = response.id
        for choice in response.choices[:1]:
            reply.parts.append(choice.message.content or "")

    def feed(self, event: Any, reply: Reply) -> None:
        """Note a chunk; the helper wraps each in an event, and adds further events that repeat the text."""
        chunk = event.chunk if getattr(event, "type", None) == "chunk" else event
        for choice in getattr(chunk, "choices", None) or ():
            # Some servers number their chunks here, or nothing: an index means something only where several were asked.
            if reply.choices == 1 or not choice.index:
                reply.parts.append((choice.delta and choice.delta.content) or "")
                reply.complete = reply.complete or choice.finish_reason is not None
        reply.id = reply.id or getattr(chunk, "id", None)


class Responses(Dialect):
    """`responses`: memories go behind the instructions, which unlike the input are not kept for the next response."""

    conversation = "input"

    def with_memories(self, arguments: Mapping[str, Any], block: str) -> dict[str, Any]:
        """Return the arguments with longer instructions."""
        given = arguments.get("instructions")
        return {**arguments, "instructions": f"{given}\n\n{block}" if isinstance(given, str) and given else block}

    def read(self, response: Any, reply: Reply) -> None:
        """Note the text of every output message."""
        reply.id = response.id
        messages = (item for item in response.output if item.type == "message")
        reply.parts.extend(part.text for item in messages for part in item.content if part.type == "output_text")

    def feed(self, event: Any, reply: Reply) -> None:
        """Note a streaming event."""
        if event.type == "response.output_text.delta":
            reply.parts.append(event.delta)
        elif event.type in ("response.created", "response.completed", "response.incomplete"):
            reply.id = event.response.id
            reply.complete = event.type != "response.created"
