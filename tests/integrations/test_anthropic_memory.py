"""The memory tool answers as the SDK's own tool over a filesystem does, whatever a model asks of both."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools.memory import BetaLocalFilesystemMemoryTool

from openproto import AsyncMemory, Memory
from openproto.integrations.anthropic_memory import AsyncMemoryTool, MemoryTool

NAMES = ["a", "b.txt", "notes", "ü", ".hidden", "c d"]
TEXTS = ["", "\n", "one", "one\ntwo\nthree\n", "two two", "  ", "é\r\nx", "naïve\n\nlast"]


def some_path(chance: random.Random) -> str:
    parts = [chance.choice(NAMES) for _ in range(chance.randint(0, 3))]
    if chance.random() < 0.05:
        parts.insert(0, "..")
    return "/".join(["/memories", *parts]) + ("/" if chance.random() < 0.1 else "")


def some_command(chance: random.Random) -> dict[str, Any]:
    path, text, old = some_path(chance), chance.choice(TEXTS), chance.choice(["one", "two", "\n", "missing"])
    view = {"command": "view", "path": path, "view_range": chance.choice([None, [1, 2], [2, -1], [5, 9]])}
    create = {"command": "create", "path": path, "file_text": text}
    commands: list[dict[str, Any]] = [
        *(view, view, create, create, create),
        {"command": "str_replace", "path": path, "old_str": old, "new_str": text},
        {"command": "insert", "path": path, "insert_line": chance.randint(-1, 4), "insert_text": "new\n"},
        {"command": "delete", "path": path},
        {"command": "rename", "old_path": path, "new_path": some_path(chance)},
    ]
    return chance.choice(commands)


def outcome(tool: Any, command: dict[str, Any]) -> str:
    try:
        answer = str(tool.call(command))
    except (ToolError, OSError) as error:
        # Where the filesystem raises its own error, ours says so to the model in the tool's.
        return f"error: {error}" if isinstance(error, ToolError) and "not a directory" not in str(error) else "error"
    # The size of a directory is the filesystem's own business.
    lines = answer.split("\n")
    return "\n".join(line.split("\t", 1)[-1] if line.endswith("/") or "\t/memories" in line else line for line in lines)


def files(root: Path) -> dict[str, str]:
    return {f"{path.relative_to(root)}": path.read_bytes().decode() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", range(6))
def test_a_hundred_random_commands_end_as_on_a_filesystem(seed: int, blocking: Memory, tmp_path: Path) -> None:
    chance = random.Random(seed)
    theirs, ours = BetaLocalFilesystemMemoryTool(str(tmp_path / "files")), MemoryTool(blocking, user_id="ada")
    for number in range(100):
        command = some_command(chance)
        expected, answer = outcome(theirs, command), outcome(ours, command)
        if expected == "error":
            assert answer.startswith("error"), (number, command)
        else:
            assert answer == expected, (number, command)
    for path, text in files(tmp_path / "files" / "memories").items():
        view = str(ours.call({"command": "view", "path": f"/memories/{path}"}))
        assert [line.split("\t", 1)[1] for line in view.split("\n")[1:]] == text.split("\n"), path


def test_a_path_that_leaves_the_root_is_refused(blocking: Memory) -> None:
    tool = MemoryTool(blocking, user_id="ada")
    for path in ("/memories/../etc", "/memories/a/../../b", "/etc/passwd", "memories/a", "/memoriesfoo", ""):
        with pytest.raises(ToolError, match=r"escape /memories|start with /memories"):
            tool.call({"command": "create", "path": path, "file_text": "x"})
    assert blocking.list("ada").items == []


def test_files_of_any_size_and_text_come_back(blocking: Memory) -> None:
    tool = MemoryTool(blocking, user_id="ada")
    text = "x" * 102_400
    tool.call({"command": "create", "path": "/memories/long", "file_text": text})
    assert text in str(tool.call({"command": "view", "path": "/memories/long"}))
    assert str(MemoryTool(blocking, user_id="bob").call({"command": "view", "path": "/memories"})).count("\n") == 1
    with pytest.raises(ToolError, match="NUL"):
        tool.call({"command": "create", "path": "/memories/nul", "file_text": "a\0b"})


def test_what_the_model_wrote_is_found_and_its_tree_is_not(blocking: Memory) -> None:
    tool = MemoryTool(blocking, user_id="ada")
    tool.call({"command": "create", "path": "/memories/food/coffee", "file_text": "Ada takes her coffee black"})
    (hit,) = blocking.search("coffee", "ada")
    assert hit.memory.content == "Ada takes her coffee black"
    assert "Files of" not in blocking.context("files of memories", "ada").text
    assert tool.clear_all_memory() == "All memory cleared"
    assert blocking.search("coffee", "ada") == []


async def test_of_many_who_create_one_file_one_succeeds_and_nothing_else_is_lost(memory: AsyncMemory) -> None:
    tools = [AsyncMemoryTool(memory, user_id="ada") for _ in range(8)]

    async def create(tool: AsyncMemoryTool, name: object) -> Any:
        return await tool.call({"command": "create", "path": f"/memories/{name}", "file_text": "x"})

    mine = [create(tool, number) for number, tool in enumerate(tools)]
    outcomes = await asyncio.gather(*mine, *(create(tool, "shared") for tool in tools), return_exceptions=True)
    failed = [isinstance(each, BaseException) for each in outcomes]
    assert failed[:8] == [False] * 8
    assert sorted(failed[8:]) == [False] + [True] * 7
    listing = str(await tools[0].call({"command": "view", "path": "/memories"}))
    assert all(f"/memories/{number}" in listing for number in range(8))
    assert len((await memory.list("ada", limit=100)).items) == 10  # nine files and the tree
