"""The capture matrix: every shape of call, with the real SDKs, is answered as without memory, and captured."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
import shapes
from anthropic import Anthropic, AsyncAnthropic
from fake_llm import MEMORIES, FakeLLM, Received
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel
from remembering_shelf import Shelf
from shapes import ANTHROPIC, OPENAI, Shape, got

from openproto import AsyncMemory, Memory
from openproto.integrations.llm import CaptureQueue, wrap

KNOWN = ("ada", "Ada takes her coffee black")

# Reading the machine's certificates takes most of a client's making, and a loopback server needs none.
CLIENTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "OpenAI": (OpenAI, openai.DefaultHttpxClient),
    "AsyncOpenAI": (AsyncOpenAI, openai.DefaultAsyncHttpxClient),
    "Anthropic": (Anthropic, anthropic.DefaultHttpxClient),
    "AsyncAnthropic": (AsyncAnthropic, anthropic.DefaultAsyncHttpxClient),
}
MATRIX = [
    pytest.param(name, memory, each, id=f"{name}-{memory.__name__}-{each.name}")
    for name in CLIENTS
    for memory in ((Memory, AsyncMemory) if name.startswith("Async") else (Memory,))
    for each in (OPENAI if "OpenAI" in name else ANTHROPIC)
]


def plain(value: Any) -> Any:
    """Return models as what they hold, classes included."""
    if isinstance(value, BaseModel):
        return type(value).__name__, {name: plain(field) for name, field in value}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def without_memories(body: bytes) -> Any:
    """Return the request as it was before a block of memories was put into it."""
    request = json.loads(body)
    for place in ("messages", "system"):
        if isinstance(request.get(place), list):
            request[place] = [m for m in request[place] if not MEMORIES.search(str(m))]
    if instructions := request.get("instructions"):
        request["instructions"] = MEMORIES.sub("", instructions).removesuffix("\n\n")
    return {name: value for name, value in request.items() if value or name not in ("system", "instructions")}


def system_as_blocks(request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(request.get("system"), str):
        return {**request, "system": [{"type": "text", "text": request["system"]}]}
    return request


async def run(name: str, each: Shape, around: Callable[[Any], Any]) -> tuple[Any, FakeLLM]:
    sdk, http = CLIENTS[name]
    with FakeLLM() as llm:
        base_url = llm.openai_url if "OpenAI" in name else llm.url
        client = sdk(base_url=base_url, api_key="k", http_client=http(verify=False))
        result = plain(await each.run(around(client)))
        await got(client.close())
    return result, llm


BARE: dict[tuple[str, str], tuple[Any, list[Received]]] = {}
"""What each shape is answered and sends without memory, by client and name."""


async def bare(name: str, each: Shape) -> tuple[Any, list[Received]]:
    if (name, each.name) not in BARE:
        result, llm = await run(name, each, lambda client: client)
        BARE[name, each.name] = result, llm.requests
    return BARE[name, each.name]


@pytest.mark.promise(43, 46, 48, 52, 56)
@pytest.mark.parametrize(("name", "kind", "each"), MATRIX)
async def test_each_shape_is_answered_as_without_memory_and_captured(
    name: str, kind: type[Memory | AsyncMemory], each: Shape
) -> None:
    expected, requests = await bare(name, each)
    given = copy.deepcopy([getattr(shapes, name) for name in ("CHAT", "RESPONSE", "MESSAGE", "CACHED")])

    shelf = Shelf(KNOWN)
    queue = CaptureQueue(memory := kind(shelf), keep="both")
    result, llm = await run(name, each, lambda client: wrap(client, queue, user_id="ada"))
    assert await queue.flush(5)
    stats = queue.stats()
    await got(memory.close())

    assert result == expected
    assert given == [shapes.CHAT, shapes.RESPONSE, shapes.MESSAGE, shapes.CACHED], "the caller's arguments are its own"
    assert [system_as_blocks(without_memories(r.body)) for r in llm.requests] == [
        system_as_blocks(r.json) for r in requests
    ]
    recalls = each.name != "responses_tool_result"  # where the user's words stand in an earlier request
    assert [len(r.memories) for r in llm.requests] == [int(recalls)]
    assert not recalls or "Ada takes her coffee black" in llm.requests[0].memories[0]
    assert shelf.contents("ada") == [text for text in (each.user, each.reply) if text]
    replies = [record for record in shelf.kept.values() if "assistant" in record.tags]
    assert [("partial" in record.tags) for record in replies] == [each.partial] * bool(each.reply)
    assert stats.last_error is None


@pytest.mark.parametrize(("name", "kind", "each"), [p for p in MATRIX if p.values[1] is Memory])
async def test_each_shape_without_recall_sends_the_very_same_bytes(name: str, kind: type[Memory], each: Shape) -> None:
    _, requests = await bare(name, each)
    with kind(Shelf(KNOWN)) as memory:
        _, llm = await run(name, each, lambda client: wrap(client, memory, user_id="ada", recall=False))
    assert [(r.path, r.body) for r in llm.requests] == [(r.path, r.body) for r in requests]


def test_the_matrix_has_as_many_shapes_as_it_promises() -> None:
    assert len(OPENAI) + len(ANTHROPIC) >= 24
