"""The tree of names: which files and directories there are, and the record that holds each file."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from anthropic.lib.tools import ToolError

ROOT = "/memories"


@dataclass(slots=True)
class Tree:
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
        """Return whether there is a file or a directory of that path."""
        return not path or path in self.files or path in self.directories

    def make_parents(self, path: str) -> None:
        """Make the directories above `path`, or raise ToolError where one of them is a file."""
        parts = path.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            directory = "/".join(parts[:depth])
            if directory in self.files:
                raise ToolError(f"The path {ROOT}/{directory} is not a directory.")
            self.directories.add(directory)


def resolved(path: str) -> str:
    """Return `path` below the root, without `.` and `..`; raise ToolError where it would leave the root."""
    if path != ROOT and not path.startswith(f"{ROOT}/"):
        raise ToolError(f"Path must start with {ROOT}, got: {path}")
    if "\0" in path or any(len(part.encode()) > 255 for part in path.split("/")):
        raise ToolError(f"Path {path!r} has a name that is too long, or a NUL character in it.")
    normal = posixpath.normpath(path)
    if normal != ROOT and not normal.startswith(f"{ROOT}/"):
        raise ToolError(f"Path {path} would escape {ROOT} directory")
    return normal[len(ROOT) + 1 :]


def is_hidden(path: str) -> bool:
    """Return whether listings leave the path out."""
    return posixpath.basename(path).startswith(".")
