"""Every shape of call that is captured, each written once and run with the synchronous and the asynchronous client."""

from __future__ import annotations

import contextlib
import gc
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from pydantic import BaseModel

SAID = "I live in Oslo"
REPLY = "You said: I live in Oslo"
FIRST = "You "
JSON_REPLY = '{"answer": "I live in Oslo"}'

Run: TypeAlias = Callable[[Any], Awaitable[Any]]
"""Makes a call with a client, or uses what a call returned."""
Call: TypeAlias = Callable[[Any], Any]
"""Calls a client; what it returns may have to be awaited."""


class Answer(BaseModel):
    answer: str


class Shape(NamedTuple):
    """A call, and what is to be captured of it: the user's words, the reply, and whether it was cut off."""

    name: str
    run: Run
    user: str | None = SAID
    reply: str | None = REPLY
    partial: bool = False


async def got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def read(stream: Any) -> list[Any]:
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


async def following(stream: Any) -> Any:
    return await anext(stream) if hasattr(stream, "__anext__") else next(stream)


@contextlib.asynccontextmanager
async def entered(manager: Any) -> AsyncIterator[Any]:
    if hasattr(manager, "__aenter__"):
        async with manager as value:
            yield value
    else:
        with manager as value:
            yield value


def called(call: Call, then: Run = got) -> Run:
    """Make the call and return what `then` returns of its result."""

    async def run(client: Any) -> Any:
        return await then(await got(call(client)))

    return run


def in_block(call: Call, then: Run = read) -> Run:
    """Make the call, and use its result in a `with` block."""

    async def run(client: Any) -> Any:
        async with entered(await got(call(client))) as stream:
            return await then(stream)

    return run


def first(count: int) -> Run:
    """Return what takes the first events of a stream and leaves the others."""

    async def take(stream: Any) -> list[Any]:
        return [await following(stream) for _ in range(count)]

    return take


async def parsed(response: Any) -> Any:
    return await got(response.parse())


async def text_and_parsed(response: Any) -> Any:
    return response.text, await parsed(response)


async def parsed_and_read(response: Any) -> Any:
    return response.status_code, await read(await got(response.parse()))


async def closed(stream: Any) -> Any:
    events = await first(2)(stream)
    await got(stream.close())
    return events


async def forgotten(client: Any) -> Any:
    stream = await got(client.chat.completions.create(**CHAT, stream=True))
    events = await first(2)(stream)
    await got(stream.response.aclose() if hasattr(stream, "__anext__") else stream.response.close())
    del stream
    gc.collect()
    return events


async def until_done(stream: Any) -> Any:
    assert await got(stream.until_done()) is stream
    return stream.current_completion_snapshot


async def final_message_and_text(stream: Any) -> Any:
    return await got(stream.get_final_message()), await got(stream.get_final_text())


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": SAID}
CHAT: dict[str, Any] = {"model": "m", "messages": [SYSTEM, USER]}
TOOLS = {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
RESULT = [
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]
PARTS = [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
DEVELOPER = {"role": "developer", "content": "Be brief."}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
LEFT: dict[str, Any] = {"reply": FIRST, "partial": True}

RESPONSE: dict[str, Any] = {"model": "m", "instructions": "Be brief.", "input": SAID}
RESPONSE_TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
ITEM = {"role": "user", "content": [{"type": "input_text", "text": SAID}]}

OPENAI = [
    Shape("chat_create", called(lambda c: c.chat.completions.create(**CHAT))),
    Shape(
        "chat_create_with_parts",
        called(lambda c: c.chat.completions.create(model="m", messages=[{"role": "user", "content": PARTS}])),
    ),
    Shape(
        "chat_create_from_an_iterator",
        called(lambda c: c.chat.completions.create(model="m", messages=iter([SYSTEM, USER]))),
    ),
    Shape(
        "chat_create_with_a_developer_message",
        called(lambda c: c.chat.completions.create(model="m", messages=[DEVELOPER, USER])),
    ),
    Shape("chat_stream", called(lambda c: c.chat.completions.create(**CHAT, stream=True), read)),
    Shape("chat_stream_with_usage", called(lambda c: c.chat.completions.create(**CHAT, **USAGE), read)),
    Shape("chat_stream_in_a_block", in_block(lambda c: c.chat.completions.create(**CHAT, stream=True))),
    Shape(
        "chat_stream_left_early", in_block(lambda c: c.chat.completions.create(**CHAT, stream=True), first(2)), **LEFT
    ),
    Shape("chat_stream_closed", called(lambda c: c.chat.completions.create(**CHAT, stream=True), closed), **LEFT),
    Shape("chat_stream_forgotten", forgotten, **LEFT),
    Shape("chat_parse", called(lambda c: c.chat.completions.parse(**CHAT, response_format=Answer)), reply=JSON_REPLY),
    Shape(
        "chat_beta_parse",
        called(lambda c: c.beta.chat.completions.parse(**CHAT, response_format=Answer)),
        reply=JSON_REPLY,
    ),
    Shape("chat_helper", in_block(lambda c: c.chat.completions.stream(**CHAT))),
    Shape(
        "chat_helper_final",
        in_block(lambda c: c.chat.completions.stream(**CHAT), lambda stream: got(stream.get_final_completion())),
    ),
    Shape("chat_helper_until_done", in_block(lambda c: c.chat.completions.stream(**CHAT), until_done)),
    Shape(
        "chat_helper_left_early",
        in_block(lambda c: c.chat.completions.stream(**CHAT), following),
        reply="",
        partial=True,
    ),
    Shape("chat_tool_call", called(lambda c: c.chat.completions.create(**CHAT, **TOOLS)), reply=None),
    Shape(
        "chat_tool_call_stream",
        called(lambda c: c.chat.completions.create(**CHAT, **TOOLS, stream=True), read),
        reply=None,
    ),
    Shape(
        "chat_tool_result",
        called(lambda c: c.chat.completions.create(model="m", messages=[SYSTEM, USER, *RESULT], **TOOLS)),
        user=None,
    ),
    Shape("chat_with_options", called(lambda c: c.with_options(timeout=9).chat.completions.create(**CHAT))),
    Shape("chat_copied_twice", called(lambda c: c.copy().with_options(max_retries=0).chat.completions.create(**CHAT))),
    Shape("chat_raw", called(lambda c: c.chat.completions.with_raw_response.create(**CHAT), text_and_parsed)),
    Shape("chat_raw_client", called(lambda c: c.with_raw_response.chat.completions.create(**CHAT), parsed)),
    Shape(
        "chat_raw_parse",
        called(lambda c: c.chat.completions.with_raw_response.parse(**CHAT, response_format=Answer), parsed),
        reply=JSON_REPLY,
    ),
    Shape(
        "chat_raw_stream",
        called(lambda c: c.chat.completions.with_raw_response.create(**CHAT, stream=True), parsed_and_read),
    ),
    Shape("responses_create", called(lambda c: c.responses.create(**RESPONSE))),
    Shape("responses_create_with_items", called(lambda c: c.responses.create(model="m", input=[ITEM]))),
    Shape("responses_stream", called(lambda c: c.responses.create(**RESPONSE, stream=True), read)),
    Shape(
        "responses_stream_left_early", in_block(lambda c: c.responses.create(**RESPONSE, stream=True), first(4)), **LEFT
    ),
    Shape("responses_parse", called(lambda c: c.responses.parse(**RESPONSE, text_format=Answer)), reply=JSON_REPLY),
    Shape("responses_helper", in_block(lambda c: c.responses.stream(**RESPONSE))),
    Shape(
        "responses_helper_final",
        in_block(lambda c: c.responses.stream(**RESPONSE), lambda stream: got(stream.get_final_response())),
    ),
    Shape("responses_tool_call", called(lambda c: c.responses.create(**RESPONSE, tools=RESPONSE_TOOLS)), reply=None),
    Shape(
        "responses_tool_result",
        called(lambda c: c.responses.create(model="m", previous_response_id="resp_0", input=[OUTPUT])),
        user=None,
        reply="You said: ",
    ),
    Shape("responses_raw", called(lambda c: c.responses.with_raw_response.create(**RESPONSE), parsed)),
    Shape("responses_beta", called(lambda c: c.beta.responses.create(**RESPONSE))),
]

MESSAGE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [USER]}
CACHED = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
MESSAGE_TOOLS = [{"name": "weather", "input_schema": {"type": "object"}}]
USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
RAIN = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
AFTER_TOOL: dict[str, Any] = {
    **MESSAGE,
    "messages": [
        USER,
        {"role": "assistant", "content": [USED]},
        {"role": "user", "content": [RAIN, {"type": "text", "text": SAID}]},
    ],
}
BEGUN: dict[str, Any] = {**MESSAGE, "messages": [USER, {"role": "assistant", "content": "Well,"}]}

ANTHROPIC = [
    Shape("messages_create", called(lambda c: c.messages.create(**MESSAGE))),
    Shape("messages_create_with_a_system_text", called(lambda c: c.messages.create(**MESSAGE, system="Be brief."))),
    Shape("messages_create_with_system_blocks", called(lambda c: c.messages.create(**MESSAGE, system=[CACHED]))),
    Shape("messages_create_with_a_begun_reply", called(lambda c: c.messages.create(**BEGUN))),
    Shape("messages_stream", called(lambda c: c.messages.create(**MESSAGE, stream=True), read)),
    Shape(
        "messages_stream_left_early", in_block(lambda c: c.messages.create(**MESSAGE, stream=True), first(3)), **LEFT
    ),
    Shape("messages_helper", in_block(lambda c: c.messages.stream(**MESSAGE, system=[CACHED]))),
    Shape("messages_helper_texts", in_block(lambda c: c.messages.stream(**MESSAGE), lambda s: read(s.text_stream))),
    Shape(
        "messages_helper_texts_left_early",
        in_block(lambda c: c.messages.stream(**MESSAGE), lambda stream: following(stream.text_stream)),
        **LEFT,
    ),
    Shape("messages_helper_final", in_block(lambda c: c.messages.stream(**MESSAGE), final_message_and_text)),
    Shape("messages_tool_use", called(lambda c: c.messages.create(**MESSAGE, tools=MESSAGE_TOOLS)), reply=None),
    Shape(
        "messages_tool_use_helper",
        in_block(
            lambda c: c.messages.stream(**MESSAGE, tools=MESSAGE_TOOLS), lambda stream: got(stream.get_final_message())
        ),
        reply=None,
    ),
    Shape("messages_tool_result", called(lambda c: c.messages.create(**AFTER_TOOL, tools=MESSAGE_TOOLS)), user=None),
    Shape("messages_parse", called(lambda c: c.messages.parse(**MESSAGE, output_format=Answer)), reply=JSON_REPLY),
    Shape("messages_raw", called(lambda c: c.messages.with_raw_response.create(**MESSAGE), parsed)),
    Shape(
        "messages_raw_stream",
        called(lambda c: c.messages.with_raw_response.create(**MESSAGE, stream=True), parsed_and_read),
    ),
    Shape("messages_beta", called(lambda c: c.beta.messages.create(**MESSAGE))),
    Shape(
        "messages_beta_helper",
        in_block(lambda c: c.beta.messages.stream(**MESSAGE), lambda stream: got(stream.get_final_message())),
    ),
    Shape("messages_with_options", called(lambda c: c.with_options(timeout=9).messages.create(**MESSAGE))),
]
