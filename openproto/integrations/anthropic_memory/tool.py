"""The two tools that Anthropic's clients take; each hands its commands to `Files`."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
from anthropic.types.beta import (
    BetaMemoryTool20250818CreateCommand,
    BetaMemoryTool20250818DeleteCommand,
    BetaMemoryTool20250818InsertCommand,
    BetaMemoryTool20250818RenameCommand,
    BetaMemoryTool20250818StrReplaceCommand,
    BetaMemoryTool20250818ViewCommand,
)

from openproto import AsyncMemory, Memory, OpenProtoError
from openproto.integrations.anthropic_memory.files import Files
from openproto.integrations.bound_client import BoundClient


class MemoryTool(BetaAbstractMemoryTool):
    """The memory tool for Anthropic's synchronous client.

    Args:
        memory: Where the files are kept; its provider must support `put`.
        user_id: Whose files they are. The model cannot choose it.
        scope: The scope of the records; files of different scopes do not see each other.
    """

    def __init__(self, memory: Memory, *, user_id: str, scope: str = "anthropic-memory") -> None:
        super().__init__()
        self._bound = BoundClient(memory)
        self._files = Files(self._bound.client, user_id, scope)

    def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Return the text of a file with line numbers, or the files of a directory."""
        return self._run(self._files.view(command.path, command.view_range))

    def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Create a file; one that exists is an error."""
        return self._run(self._files.create(command.path, command.file_text))

    def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that occurs exactly once in a file."""
        return self._run(self._files.str_replace(command.path, command.old_str, command.new_str or ""))

    def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert lines after a line of a file."""
        return self._run(self._files.insert(command.path, command.insert_line, command.insert_text))

    def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory with everything in it."""
        return self._run(self._files.delete(command.path))

    def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Move a file or a directory."""
        return self._run(self._files.rename(command.old_path, command.new_path))

    def clear_all_memory(self) -> str:
        """Delete every file of the user."""
        return self._run(self._files.clear())

    def _run(self, work: Coroutine[Any, Any, str]) -> str:
        return self._bound.run(_explained(work))


class AsyncMemoryTool(BetaAsyncAbstractMemoryTool):
    """The memory tool for Anthropic's asynchronous client; the arguments are those of `MemoryTool`.

    With a `Memory` it serves every event loop, with an `AsyncMemory` the one that first used it.
    """

    def __init__(self, memory: AsyncMemory | Memory, *, user_id: str, scope: str = "anthropic-memory") -> None:
        super().__init__()
        self._bound = BoundClient(memory)
        self._files = Files(self._bound.client, user_id, scope)

    async def view(self, command: BetaMemoryTool20250818ViewCommand) -> str:
        """Return the text of a file with line numbers, or the files of a directory."""
        return await self._call(self._files.view(command.path, command.view_range))

    async def create(self, command: BetaMemoryTool20250818CreateCommand) -> str:
        """Create a file; one that exists is an error."""
        return await self._call(self._files.create(command.path, command.file_text))

    async def str_replace(self, command: BetaMemoryTool20250818StrReplaceCommand) -> str:
        """Replace a text that occurs exactly once in a file."""
        return await self._call(self._files.str_replace(command.path, command.old_str, command.new_str or ""))

    async def insert(self, command: BetaMemoryTool20250818InsertCommand) -> str:
        """Insert lines after a line of a file."""
        return await self._call(self._files.insert(command.path, command.insert_line, command.insert_text))

    async def delete(self, command: BetaMemoryTool20250818DeleteCommand) -> str:
        """Delete a file, or a directory with everything in it."""
        return await self._call(self._files.delete(command.path))

    async def rename(self, command: BetaMemoryTool20250818RenameCommand) -> str:
        """Move a file or a directory."""
        return await self._call(self._files.rename(command.old_path, command.new_path))

    async def clear_all_memory(self) -> str:
        """Delete every file of the user."""
        return await self._call(self._files.clear())

    async def _call(self, work: Coroutine[Any, Any, str]) -> str:
        return await self._bound.call(_explained(work))


async def _explained(work: Coroutine[Any, Any, str]) -> str:
    """Await `work`; an error of the protocol becomes one that the model can read."""
    try:
        return await work
    except OpenProtoError as error:
        raise ToolError(error.message) from error
