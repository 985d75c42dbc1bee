"""Stores and tools in the place of a framework's own do what those do, whatever is asked of both."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from anthropic.lib.tools import ToolError
from anthropic.tools.memory import BetaLocalFilesystemMemoryTool
from langgraph.store.base import GetOp, IndexConfig, ListNamespacesOp, MatchCondition, Op, PutOp, SearchOp
from langgraph.store.memory import InMemoryStore
from pydantic_ai_harness import memory as harness

from openproto import AsyncMemory, Memory
from openproto.integrations.anthropic_memory import AsyncMemoryTool, MemoryTool
from openproto.integrations.langgraph import IndexEmbedder, OpenProtoStore
from openproto.integrations.langgraph import store as store_module
from openproto.integrations.pydantic_ai import OpenProtoMemoryStore

LABELS = ["a", "b", "a/b", "%", "*", "ü", "a%2Fb", " "]
KEYS = ["k", "k/l", "k'\"", "../k", "K", "x" * 600]
NESTED = {"nested": {"deep": {"n": 3}}, "none": None, "flag": True}
VALUES: list[Any] = [{"n": 1}, {"n": 2.5, "color": "red"}, {"color": "blue", "tags": ["x", "y"]}, NESTED, {}]
DEEP = {"nested": {"deep": {"n": {"$eq": 3}}}}
FILTERS: list[Any] = [None, {"color": "red"}, {"color": {"$ne": "red"}}, DEEP, {"tags": ["x", "y"]}]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OpenProtoStore]:
    with OpenProtoStore(Memory("sqlite", path=tmp_path / "memory.db", embedder=None)) as store:
        yield store


def some_namespace(chance: random.Random, least: int = 1) -> tuple[str, ...]:
    return tuple(chance.choice(LABELS) for _ in range(chance.randint(least, 3)))


def some_op(chance: random.Random, *, deletes: bool) -> Op:
    # The store in memory lists namespaces whose last item was deleted, or that were only asked for: where namespaces
    # are listed, nothing is deleted or asked for by its key.
    kind = chance.choice(range(8) if deletes else (0, 1, 2, 3, 6, 7, 8, 9))
    if kind < 4:
        value = chance.choice([*VALUES, None] if deletes else VALUES)
        return PutOp(some_namespace(chance), chance.choice(KEYS), value)
    if kind < 6:
        return GetOp(some_namespace(chance), chance.choice(KEYS))
    if kind < 8:
        return SearchOp(some_namespace(chance, 0), chance.choice(FILTERS), limit=100)
    paths = tuple(chance.choice([*LABELS, "*"]) for _ in range(chance.randint(1, 2)))
    conditions = [None, (MatchCondition("prefix", paths),), (MatchCondition("suffix", paths),)]
    return ListNamespacesOp(chance.choice(conditions), chance.choice([None, 1, 2]), limit=chance.choice([2, 100]))


def plain(results: Sequence[Any]) -> list[Any]:
    def one(result: Any) -> Any:
        if isinstance(result, list):
            return sorted(map(repr, map(one, result)))
        if hasattr(result, "namespace"):
            return (result.namespace, result.key, repr(result.value))
        return result

    return [one(result) for result in results]


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_end_as_in_memory(seed: int, store: OpenProtoStore) -> None:
    chance, theirs = random.Random(seed), InMemoryStore()
    for number in range(40):
        ops = [some_op(chance, deletes=seed % 2 == 0) for _ in range(chance.randint(1, 5))]
        assert plain(store.batch(ops)) == plain(theirs.batch(ops)), (number, ops)


def test_numbers_are_compared_and_what_is_none_is_left_out(store: OpenProtoStore) -> None:
    for key, value in (("one", {"n": 1}), ("two", {"n": 2.5}), ("none", {}), ("text", {"n": "x"})):
        store.put(("a",), key, value)
    found = store.search(("a",), filter={"n": {"$gte": 1, "$lt": 2.5}})
    assert [item.key for item in found] == ["one"]
    assert {item.key for item in store.search(("a",), filter={"n": {"$gt": 1}})} == {"two"}
    store.put(("a",), "nested", {"user": {"access-level": "x"}, "user.name": "dotted"})
    for wanted in ({"user.access-level": "x"}, {"user.name": "dotted"}, {"user": {"access-level": "x"}}):
        assert [item.key for item in store.search(("a",), filter=wanted)] == ["nested"]


def test_an_item_keeps_its_creation_and_shows_its_change(store: OpenProtoStore) -> None:
    found: list[Any] = []
    for n in (1, 2):
        store.put(("a",), "k", {"n": n})
        found.append(store.get(("a",), "k"))
    first, second = found
    assert (second.created_at, second.value) == (first.created_at, {"n": 2})
    assert second.updated_at > first.updated_at


async def test_calls_of_one_moment_run_together_and_fail_alone(tmp_path: Path) -> None:
    async with OpenProtoStore(AsyncMemory("sqlite", path=tmp_path / "memory.db", embedder=None)) as store:
        await asyncio.gather(*(store.aput(("a",), f"k{n}", {"n": n}) for n in range(50)))
        bad = store.asearch(("a",), filter={"n": {"$like": 1}})
        getting = [store.aget(("a",), f"k{n}") for n in range(50)]
        found: list[Any] = await asyncio.gather(*getting, bad, return_exceptions=True)
        error = found.pop()
        assert [item.value["n"] for item in found] == list(range(50))
        assert isinstance(error, ValueError)
        assert "$like" in str(error)
        with pytest.raises(asyncio.InvalidStateError, match="Memory"):
            store.get(("a",), "k1")
        assert (await asyncio.to_thread(store.get, ("a",), "k1")).value == {"n": 1}  # type: ignore[union-attr]


def letters(texts: Sequence[str]) -> list[list[float]]:
    return [[float(text.count(chr(letter))) for letter in range(97, 123)] for text in texts]


def test_fields_are_found_each_for_itself(tmp_path: Path) -> None:
    index: IndexConfig = {"dims": 26, "embed": letters, "fields": ["title", "parts[*].text"]}
    memory = Memory("sqlite", path=tmp_path / "memory.db", embedder=IndexEmbedder(index))
    with OpenProtoStore(memory, index=index) as store:
        store.put(("a",), "one", {"title": "xxx", "parts": [{"text": "yyy"}, {"text": "zzz"}], "other": "www"})
        store.put(("a",), "two", {"title": "zzz"})
        store.put(("a",), "hidden", {"title": "zzz"}, index=False)
        assert next(item.key for item in store.search(("a",), query="yyy")) == "one"
        both = store.search(("a",), query="zzz")
        assert {item.key for item in both} == {"one", "two"}
        assert all(item.score is not None and item.score > 0.9 for item in both)
        store.put(("a",), "one", {"title": "qqq"})
        assert [item.key for item in store.search(("a",), query="zzz") if (item.score or 0) > 0.9] == ["two"]
        assert {item.key for item in store.search(("a",))} == {"one", "two", "hidden"}
        store.delete(("a",), "one")
        assert {item.key for item in store.search(("a",))} == {"two", "hidden"}
    with Memory("sqlite", path=tmp_path / "memory.db", embedder=IndexEmbedder(index)) as left:
        assert len(left.list("langgraph").items) == 2  # of an item with several texts nothing stays behind


def test_reading_gives_an_item_more_time(store: OpenProtoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return now

    monkeypatch.setattr(store_module, "datetime", Clock)
    store.put(("a",), "short", {"n": 1}, ttl=1)
    store.put(("a",), "read", {"n": 2}, ttl=1)
    store.put(("a",), "kept", {"n": 3})
    now += timedelta(seconds=50)
    assert store.get(("a",), "read") is not None
    assert store.get(("a",), "short", refresh_ttl=False) is not None
    now += timedelta(seconds=20)
    assert store.get(("a",), "short") is None
    assert {item.key for item in store.search(("a",), refresh_ttl=False)} == {"read", "kept"}
    assert store.sweep_ttl() == 1
    assert store.sweep_ttl() == 0
    assert store.get(("a",), "read") is not None


PATHS = ["a/MEMORY.md", "a/coffee.md", "a/b/MEMORY.md", "ab.md", "a/../b", "a/./b", "a//b", "/a", "a b", "x" * 201]


async def told(call: Any) -> Any:
    """Return what a call returns, without the versions, which are opaque, or the class of what it raises."""
    try:
        result = await call
    except (ValueError, harness.MemoryConflictError, harness.MemoryOperationConflictError) as error:
        return type(error)
    if result is None or isinstance(result, list):
        return result
    return {name: bool(value) if name == "version" else value for name, value in vars(result).items()}


@pytest.mark.parametrize("seed", range(3))
async def test_commands_end_as_in_the_harness_s_own_store(memory: AsyncMemory, seed: int) -> None:
    chance = random.Random(seed)
    stores: list[Any] = [OpenProtoMemoryStore(memory, user_id="ada"), harness.InMemoryStore()]
    assert isinstance(stores[0], harness.MemoryStore)
    assert isinstance(stores[0], harness.SearchableMemoryStore)
    assert isinstance(stores[0], harness.MetadataMemoryStore)
    for _ in range(150):
        path = chance.choice(PATHS if chance.random() < 0.2 else PATHS[:4])
        text = chance.choice(["", " \n", "coffee", "a\r\nb\n", "é" * 300])
        operation = (
            harness.MemoryOperation(str(chance.randrange(40)), f"{path} {text}") if chance.random() < 0.5 else None
        )
        command = chance.choice(["read", "write", "describe", "describe", "delete", "list", "done"])
        metadata, stale = chance.choice([None, {}, {"by": "Ada", "über": "é\n"}]), chance.random() < 0.2
        prefix, outcomes = chance.choice(["", "a/", "a", "a/b/", "nothing/"]), []
        for store in stores:
            current = None if path in PATHS[4:] else await store.read(path, max_chars=1)
            version = "stale" if stale else current and current.version
            change: dict[str, Any] = {"expected_version": version, "operation": operation}
            call = {
                "read": partial(store.read, path, max_chars=3),
                "write": partial(store.write, path, text, **change),
                "describe": partial(store.write_with_metadata, path, text, metadata=metadata, **change),
                "delete": partial(store.delete, path, **change),
                "list": partial(store.list_paths, prefix, limit=2),
                "done": partial(store.get_operation, operation or harness.MemoryOperation("none", "")),
            }[command]
            outcomes.append(await told(call()))
        assert outcomes[0] == outcomes[1], (command, path, text, operation, stale, prefix, metadata)


async def test_an_interrupted_write_is_not_repeated(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    store, operation = OpenProtoMemoryStore(memory, user_id="ada"), harness.MemoryOperation("1", "f")

    async def interrupted(*_: Any, **__: Any) -> Any:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(store, "_note", interrupted)
        with pytest.raises(asyncio.CancelledError):
            await store.write("a/MEMORY.md", "one", expected_version=None, operation=operation)
    written = await store.read("a/MEMORY.md", max_chars=10)
    assert written is not None
    again = await store.write("a/MEMORY.md", "one one", expected_version=written.version, operation=operation)
    assert (again.version, again.existed) == (written.version, False)
    assert (await store.read("a/MEMORY.md", max_chars=10) or written).content == "one"


async def test_a_search_finds_what_lies_directly_below_a_prefix_of_one_user(memory: AsyncMemory) -> None:
    for user_id, path in (("ada", "a/drinks.md"), ("ada", "a/b/drinks.md"), ("bob", "a/bobs.md")):
        store = OpenProtoMemoryStore(memory, user_id=user_id)
        await store.write(path, f"Her coffee is black, says {user_id}", expected_version=None)
    bounds: dict[str, int] = {"limit": 5, "max_files": 9, "max_chars": 99, "max_file_chars": 99}
    found = await OpenProtoMemoryStore(memory, user_id="ada").search("a/", "coffee", **bounds)
    assert [(match.path, "coffee is black" in match.snippet) for match in found.matches] == [("a/drinks.md", True)]
    keys = {record.key for record in (await memory.list("ada", scope="pydantic-ai")).items}
    assert keys == {"pydantic-ai/a/drinks.md", "pydantic-ai/a/b/drinks.md"}


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
