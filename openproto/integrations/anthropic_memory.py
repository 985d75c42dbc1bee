"""Anthropic's client-side memory tool (`memory_20250818`) over any provider that keeps keys and versions.

    from openproto.integrations.anthropic_memory import MemoryTool

    tool = MemoryTool(memory, user_id="ada")
    client.beta.messages.run_tools(model=..., messages=..., tools=[tool], betas=["context-management-2025-06-27"])

A file is a record whose content is the file's text, so `search` and `context` find it. The tree of names is one record
more, which is replaced under the condition that nobody else has changed it: therefore a file or a whole directory is
created, deleted, or renamed at one moment. That record is never current, so no search returns it.

Answers and errors have the wording of the SDK's own filesystem tool, which the model knows.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from anthropic.lib.tools import BetaAbstractMemoryTool, BetaAsyncAbstractMemoryTool, ToolError
from anthropic.types.beta import (
    BetaMemoryTool20250818CreateCommand,
    BetaMemoryTool20250818DeleteCommand,
    BetaMemoryTool20250818InsertCommand,
    BetaMemoryTool20250818RenameCommand,
    BetaMemoryTool20250818StrReplaceCommand,
    BetaMemoryTool20250818ViewCommand,
)

from openproto.client.async_memory import AsyncMemory
from openproto.client.memory import Memory
from openproto.errors import ConflictError, NotFoundError, OpenProtoError
from openproto.fields import MAX_CONTENT_LENGTH
from openproto.integrations.bound_client import BoundClient
from openproto.models import MemoryRecord

__all__ = ["AsyncMemoryTool", "MemoryTool"]

T = TypeVar("T")

ROOT = "/memories"
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_LINES = 999_999
_NUMBER_WIDTH = len(str(_MOST_LINES))
_ATTEMPTS = 50
"""How often a change of the tree is tried again after somebody else's came first."""


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
        self._files = _Files(self._bound.client, user_id, scope)

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
        self._files = _Files(self._bound.client, user_id, scope)

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


@dataclass(slots=True)
class _Tree:
    """The names: each file's record id by its path below the root, and the directories."""

    files: dict[str, str]
    directories: set[str]
    version: str = "absent"

    def children(self, directory: str) -> Iterator[str]:
        """Yield the paths directly inside `directory`, by name."""
        prefix = f"{directory}/" if directory else ""
        inside = (path for path in (*self.files, *self.directories) if path.startswith(prefix) and path != directory)
        yield from sorted(path for path in inside if "/" not in path[len(prefix) :])

    def below(self, path: str) -> list[str]:
        """Return the files that are `path` or inside it."""
        return [file for file in self.files if file == path or file.startswith(f"{path}/")]

    def exists(self, path: str) -> bool:
        return not path or path in self.files or path in self.directories

    def make_parents(self, path: str) -> None:
        """Make the directories above `path`, or raise ToolError where one of them is a file."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory in self.files:
                raise ToolError(f"The path {ROOT}/{directory} is not a directory.")
            self.directories.add(directory)


class _Files:
    """The commands, over records of one user under one scope."""

    def __init__(self, memory: AsyncMemory, user_id: str, scope: str) -> None:
        self._memory = memory
        self._user_id = user_id
        self._scope = scope
        self._key = f"{scope}/tree"

    async def view(self, path: str, view_range: list[int] | None) -> str:
        name = _resolved(path)
        tree = await self._tree()
        if not tree.exists(name):
            raise ToolError(f"The path {path} does not exist. Please provide a valid path.")
        if name in tree.files:
            return _numbered(path, _text_of(await self._record(tree, name, path)), view_range)
        return await self._listing(tree, name, path)

    async def create(self, path: str, text: str) -> str:
        name = _resolved(path)

        def free(tree: _Tree) -> None:
            tree.make_parents(name)
            if tree.exists(name):
                raise ToolError(f"File {path} already exists")

        free(await self._tree())
        record = await self._memory.add(
            **_fields_of(text), user_id=self._user_id, scope=self._scope, source={"app": "anthropic-memory"}
        )

        def put(tree: _Tree) -> None:
            free(tree)
            tree.files[name] = record.id

        try:
            await self._change(put)
        except BaseException:
            await self._discard([record.id])
            raise
        return f"File created successfully at: {path}"

    async def str_replace(self, path: str, old: str, new: str) -> str:
        changed_line = 0

        def edit(text: str) -> str:
            nonlocal changed_line
            count = text.count(old)
            if count == 0:
                raise ToolError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
            if count > 1:
                lines = ", ".join(str(text[:at].count("\n") + 1) for at in _occurrences(text, old))
                raise ToolError(
                    f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: {lines}. "
                    "Please ensure it is unique"
                )
            changed_line = text[: text.find(old)].count("\n")
            return text.replace(old, new)

        lines = (await self._edit(path, edit)).split("\n")
        first, last = max(0, changed_line - 2), min(len(lines), changed_line + 3)
        return (
            "The memory file has been edited. Here is the snippet showing the change (with line numbers):\n"
            + _with_numbers(lines[first:last], first + 1)
        )

    async def insert(self, path: str, line: int, inserted: str) -> str:
        def edit(text: str) -> str:
            lines = text.split("\n")
            if lines[-1] == "":
                lines.pop()
            if not 0 <= line <= len(lines):
                raise ToolError(
                    f"Invalid `insert_line` parameter: {line}. It should be within the range [0, {len(lines)}]."
                )
            lines.insert(line, inserted.rstrip("\n"))
            edited = "\n".join(lines)
            return edited if edited.endswith("\n") else f"{edited}\n"

        await self._edit(path, edit)
        return f"The file {path} has been edited."

    async def delete(self, path: str) -> str:
        name = _resolved(path)
        if not name:
            raise ToolError(f"Cannot delete the {ROOT} directory itself")
        removed: list[str] = []

        def remove(tree: _Tree) -> None:
            if not tree.exists(name):
                raise ToolError(f"The path {path} does not exist")
            removed[:] = [tree.files.pop(file) for file in tree.below(name)]
            tree.directories -= {each for each in tree.directories if each == name or each.startswith(f"{name}/")}

        await self._change(remove)
        await self._discard(removed)
        return f"Successfully deleted {path}"

    async def rename(self, old_path: str, new_path: str) -> str:
        old, new = _resolved(old_path), _resolved(new_path)
        if not old:
            raise ToolError(f"Cannot rename the {ROOT} directory itself")
        is_inside, is_missing = new.startswith(f"{old}/"), False

        def move(tree: _Tree) -> None:
            nonlocal is_missing
            if tree.exists(new):
                raise ToolError(f"The destination {new_path} already exists")
            # Made even where nothing can be moved, as the filesystem tool does.
            tree.make_parents(new)
            is_missing = not tree.exists(old)
            if is_missing or is_inside:
                return

            def moved(path: str) -> str:
                return new + path[len(old) :] if path == old or path.startswith(f"{old}/") else path

            tree.files = {moved(path): id for path, id in tree.files.items()}
            tree.directories = {moved(path) for path in tree.directories}

        await self._change(move)
        if is_missing:
            raise ToolError(f"The path {old_path} does not exist")
        if is_inside:
            raise ToolError(f"The path {old_path} cannot be moved into itself: {new_path}")
        return f"Successfully renamed {old_path} to {new_path}"

    async def clear(self) -> str:
        def empty(tree: _Tree) -> None:
            tree.files.clear()
            tree.directories.clear()

        await self._change(empty)
        tree_id = (await self._memory.get(user_id=self._user_id, key=self._key)).id
        records = self._memory.iter(self._user_id, scope=self._scope)
        await self._discard([record.id async for record in records if record.id != tree_id])
        return "All memory cleared"

    # The records.

    async def _tree(self) -> _Tree:
        try:
            record = await self._memory.get(user_id=self._user_id, key=self._key)
        except NotFoundError:
            return _Tree({}, set())
        kept: Any = record.extensions["x-anthropic-memory"]
        return _Tree(dict(kept["files"]), set(kept["directories"]), record.version or "")

    async def _change(self, change: Callable[[_Tree], None]) -> None:
        """Apply `change` to the tree as it is then, again after each change of somebody else's."""
        for _ in range(_ATTEMPTS):
            tree = await self._tree()
            change(tree)
            names: dict[str, Any] = {"files": tree.files, "directories": sorted(tree.directories)}
            try:
                await self._memory.put(
                    f"Files of {ROOT}",
                    user_id=self._user_id,
                    key=self._key,
                    if_version=tree.version,
                    scope=self._scope,
                    valid_to=_NEVER,
                    x_anthropic_memory=names,
                )
            except ConflictError:
                continue
            return
        raise ToolError("The memory directory is being changed by others. Please try again.")

    async def _edit(self, path: str, edit: Callable[[str], str]) -> str:
        """Replace the text of a file by what `edit` returns and return that."""
        name = _resolved(path)
        for _ in range(_ATTEMPTS):
            tree = await self._tree()
            if not tree.exists(name):
                raise ToolError(f"The path {path} does not exist. Please provide a valid path.")
            if name not in tree.files:
                raise ToolError(f"The path {path} is not a file.")
            record = await self._record(tree, name, path)
            text = edit(_text_of(record))
            try:
                await self._memory.update(
                    record.id, user_id=self._user_id, if_version=record.version, **_fields_of(text)
                )
            except ConflictError:
                continue
            except NotFoundError:
                _vanished(path)
            return text
        raise ToolError(f"The file {path} is being changed by others. Please try again.")

    async def _record(self, tree: _Tree, name: str, path: str) -> MemoryRecord:
        try:
            return await self._memory.get(tree.files[name], user_id=self._user_id)
        except NotFoundError:
            _vanished(path)

    async def _discard(self, ids: list[str]) -> None:
        for id in ids:
            try:
                await self._memory.delete(id, user_id=self._user_id)
            except NotFoundError:
                continue

    async def _listing(self, tree: _Tree, directory: str, path: str) -> str:
        shown = [
            each
            for child in tree.children(directory)
            if not _is_hidden(child)
            for each in (
                child,
                *(inner for inner in tree.children(child) if child in tree.directories and not _is_hidden(inner)),
            )
        ]
        lines = [f"4K\t{path}"]
        prefix = len(directory) + 1 if directory else 0
        for each in shown:
            if each in tree.directories:
                lines.append(f"4K\t{path}/{each[prefix:]}/")
            else:
                size = len(_text_of(await self._record(tree, each, f"{ROOT}/{each}")).encode())
                lines.append(f"{_size(size)}\t{path}/{each[prefix:]}")
        header = f"Here're the files and directories up to 2 levels deep in {path}, excluding hidden items:"
        return "\n".join([header, *lines])


def _resolved(path: str) -> str:
    """Return `path` below the root, without `.` and `..`; raise ToolError where it would leave the root."""
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        raise ToolError(f"Path must start with {ROOT}, got: {path}")
    if "\0" in path or any(len(part.encode()) > 255 for part in path.split("/")):
        raise ToolError(f"Path {path!r} has a name that is too long, or a NUL character in it.")
    normal = posixpath.normpath(path)
    if normal != ROOT and not normal.startswith(f"{ROOT}/"):
        raise ToolError(f"Path {path} would escape {ROOT} directory")
    return normal[len(ROOT) + 1 :]


def _fields_of(text: str) -> dict[str, Any]:
    """Return the fields of a record that hold `text`: its content, and what content cannot hold as an extension."""
    if text.strip() and len(text) <= MAX_CONTENT_LENGTH:
        return {"content": text, "x_anthropic_memory": None}
    shown = text[:MAX_CONTENT_LENGTH]
    return {"content": shown if shown.strip() else "(no text)", "x_anthropic_memory": {"text": text}}


def _text_of(record: MemoryRecord) -> str:
    kept: Any = record.extensions.get("x-anthropic-memory")
    return str(kept["text"]) if kept else record.content


def _numbered(path: str, text: str, view_range: list[int] | None) -> str:
    lines = text.split("\n")
    if len(lines) > _MOST_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of 999,999 lines.")
    first, last = 1, len(lines)
    if view_range and len(view_range) == 2:
        first = max(1, view_range[0])
        last = len(lines) if view_range[1] == -1 else view_range[1]
    return f"Here's the content of {path} with line numbers:\n" + _with_numbers(lines[first - 1 : last], first)


def _with_numbers(lines: list[str], first: int) -> str:
    return "\n".join(f"{number:>{_NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines, first))


def _occurrences(text: str, part: str) -> Iterator[int]:
    at = text.find(part)
    while at != -1:
        yield at
        at = text.find(part, at + 1)


def _is_hidden(path: str) -> bool:
    return posixpath.basename(path).startswith(".")


def _size(count: int) -> str:
    unit = min(max(count.bit_length() - 1, 0) // 10, 3)
    size = count / 1024**unit
    return f"{int(size)}{'BKMG'[unit]}" if size == int(size) else f"{size:.1f}{'BKMG'[unit]}"


def _vanished(path: str) -> NoReturn:
    raise ToolError(f"The file {path} no longer exists (may have been deleted or renamed concurrently).")
