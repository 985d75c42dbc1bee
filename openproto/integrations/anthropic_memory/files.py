"""The commands of the memory tool, over records of one user under one scope."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NoReturn

from anthropic.lib.tools import ToolError

from openproto import AsyncMemory, ConflictError, MemoryRecord, NotFoundError
from openproto.integrations.anthropic_memory.texts import (
    fields_of,
    numbered,
    occurrences,
    size,
    text_of,
    with_numbers,
)
from openproto.integrations.anthropic_memory.tree import ROOT, Tree, is_hidden, resolved

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_ATTEMPTS = 50
"""How often a change of the tree is tried again after somebody else's came first."""


class Files:
    """The commands, over records of one user under one scope."""

    def __init__(self, memory: AsyncMemory, user_id: str, scope: str) -> None:
        self._memory = memory
        self._user_id = user_id
        self._scope = scope
        self._key = f"{scope}/tree"

    async def view(self, path: str, view_range: list[int] | None) -> str:
        """Return the text of a file with line numbers, or the files of a directory."""
        name = resolved(path)
        tree = await self._tree()
        if not tree.exists(name):
            raise ToolError(f"The path {path} does not exist. Please provide a valid path.")
        if name in tree.files:
            return numbered(path, text_of(await self._record(tree, name, path)), view_range)
        return await self._listing(tree, name, path)

    async def create(self, path: str, text: str) -> str:
        """Create a file; one that exists is an error."""
        name = resolved(path)

        def free(tree: Tree) -> None:
            tree.make_parents(name)
            if tree.exists(name):
                raise ToolError(f"File {path} already exists")

        free(await self._tree())
        record = await self._memory.add(
            **fields_of(text), user_id=self._user_id, scope=self._scope, source={"app": "anthropic-memory"}
        )

        def put(tree: Tree) -> None:
            free(tree)
            tree.files[name] = record.id

        try:
            await self._change(put)
        except BaseException:
            await self._discard([record.id])
            raise
        return f"File created successfully at: {path}"

    async def str_replace(self, path: str, old: str, new: str) -> str:
        """Replace a text that occurs exactly once in a file."""
        changed_line = 0

        def edit(text: str) -> str:
            nonlocal changed_line
            count = text.count(old)
            if count == 0:
                raise ToolError(f"No replacement was performed, old_str `{old}` did not appear verbatim in {path}.")
            if count > 1:
                lines = ", ".join(str(text[:at].count("\n") + 1) for at in occurrences(text, old))
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
            + with_numbers(lines[first:last], first + 1)
        )

    async def insert(self, path: str, line: int, inserted: str) -> str:
        """Insert lines after a line of a file."""

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
        """Delete a file, or a directory with everything in it."""
        name = resolved(path)
        if not name:
            raise ToolError(f"Cannot delete the {ROOT} directory itself")
        removed: list[str] = []

        def remove(tree: Tree) -> None:
            if not tree.exists(name):
                raise ToolError(f"The path {path} does not exist")
            removed[:] = [tree.files.pop(file) for file in tree.below(name)]
            tree.directories -= {each for each in tree.directories if each == name or each.startswith(f"{name}/")}

        await self._change(remove)
        await self._discard(removed)
        return f"Successfully deleted {path}"

    async def rename(self, old_path: str, new_path: str) -> str:
        """Move a file or a directory."""
        old, new = resolved(old_path), resolved(new_path)
        if not old:
            raise ToolError(f"Cannot rename the {ROOT} directory itself")
        is_inside, is_missing = new.startswith(f"{old}/"), False

        def move(tree: Tree) -> None:
            nonlocal is_missing
            if tree.exists(new):
                raise ToolError(f"The destination {new_path} already exists")
            is_missing = not tree.exists(old)
            # As in the filesystem tool: made even where nothing can be moved, and right below a file the lack is named.
            if not (is_missing and new.rpartition("/")[0] in tree.files):
                tree.make_parents(new)
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
        """Delete every file."""

        def empty(tree: Tree) -> None:
            tree.files.clear()
            tree.directories.clear()

        await self._change(empty)
        tree_id = (await self._memory.get(user_id=self._user_id, key=self._key)).id
        records = self._memory.iter(self._user_id, scope=self._scope)
        await self._discard([record.id async for record in records if record.id != tree_id])
        return "All memory cleared"

    # The records.

    async def _tree(self) -> Tree:
        try:
            record = await self._memory.get(user_id=self._user_id, key=self._key)
        except NotFoundError:
            return Tree({}, set())
        kept: Any = record.extensions["x-anthropic-memory"]
        return Tree(dict(kept["files"]), set(kept["directories"]), record.version or "")

    async def _change(self, change: Callable[[Tree], None]) -> None:
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
        name = resolved(path)
        for _ in range(_ATTEMPTS):
            tree = await self._tree()
            if not tree.exists(name):
                raise ToolError(f"The path {path} does not exist. Please provide a valid path.")
            if name not in tree.files:
                raise ToolError(f"The path {path} is not a file.")
            record = await self._record(tree, name, path)
            text = edit(text_of(record))
            try:
                await self._memory.update(
                    record.id, user_id=self._user_id, if_version=record.version, **fields_of(text)
                )
            except ConflictError:
                continue
            except NotFoundError:
                _vanished(path)
            return text
        raise ToolError(f"The file {path} is being changed by others. Please try again.")

    async def _record(self, tree: Tree, name: str, path: str) -> MemoryRecord:
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

    async def _listing(self, tree: Tree, directory: str, path: str) -> str:
        shown = [
            each
            for child in tree.children(directory)
            if not is_hidden(child)
            for each in (
                child,
                *(inner for inner in tree.children(child) if child in tree.directories and not is_hidden(inner)),
            )
        ]
        lines = [f"4K\t{path}"]
        prefix = len(directory) + 1 if directory else 0
        for each in shown:
            if each in tree.directories:
                lines.append(f"4K\t{path}/{each[prefix:]}/")
            else:
                text = text_of(await self._record(tree, each, f"{ROOT}/{each}"))
                lines.append(f"{size(len(text.encode()))}\t{path}/{each[prefix:]}")
        header = f"Here're the files and directories up to 2 levels deep in {path}, excluding hidden items:"
        return "\n".join([header, *lines])


def _vanished(path: str) -> NoReturn:
    raise ToolError(f"The file {path} no longer exists (may have been deleted or renamed concurrently).")
