"""Anthropic's client-side memory tool (`memory_20250818`) over any provider that keeps keys and versions.

    from openproto.integrations.anthropic_memory import MemoryTool

    tool = MemoryTool(memory, user_id="ada")
    client.beta.messages.run_tools(model=..., messages=..., tools=[tool], betas=["context-management-2025-06-27"])

A file is a record whose content is the file's text, so `search` and `context` find it. The tree of names is one record
more, which is replaced under the condition that it has not changed meanwhile: therefore a file or a whole directory is
created, deleted, or renamed at one moment. That record is never current, so no search returns it.

Answers and errors have the wording of the SDK's own filesystem tool, which the model knows.
"""

from openproto.integrations.extras import needs

with needs("anthropic"):
    from openproto.integrations.anthropic_memory.tool import AsyncMemoryTool, MemoryTool

__all__ = ["AsyncMemoryTool", "MemoryTool"]
