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


class Answer(BaseModel):
    answer: str


class Shape(NamedTuple):
    """A call, and what is to be captured of it: the user's words, the reply, and whether it was cut off."""

    name: str
    run: Callable[[Any], Awaitable[Any]]
    user: str | None
    reply: str | None
    partial: bool


Shapes: TypeAlias = list[Shape]
OPENAI: Shapes = []
ANTHROPIC: Shapes = []


def shape(
    shapes: Shapes, user: str | None = SAID, reply: str | None = REPLY, *, partial: bool = False
) -> Callable[[Callable[[Any], Awaitable[Any]]], None]:
    def note(run: Callable[[Any], Awaitable[Any]]) -> None:
        shapes.append(Shape(getattr(run, "__name__", ""), run, user, reply, partial))

    return note


async def got(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


async def items(stream: Any) -> AsyncIterator[Any]:
    if hasattr(stream, "__aiter__"):
        async for item in stream:
            yield item
    else:
        for item in stream:
            yield item


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


async def read(stream: Any) -> list[Any]:
    return [item async for item in items(stream)]


SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": SAID}
CHAT: dict[str, Any] = {"model": "m", "messages": [SYSTEM, USER]}
CHAT_TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
CHAT_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@shape(OPENAI)
async def chat_create(client: Any) -> Any:
    return await got(client.chat.completions.create(**CHAT))


@shape(OPENAI)
async def chat_create_with_parts(client: Any) -> Any:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": SAID}, image]
    return await got(client.chat.completions.create(model="m", messages=[{"role": "user", "content": parts}]))


@shape(OPENAI)
async def chat_create_from_an_iterator(client: Any) -> Any:
    return await got(client.chat.completions.create(model="m", messages=iter([SYSTEM, USER])))


@shape(OPENAI)
async def chat_create_with_a_developer_message(client: Any) -> Any:
    messages = [{"role": "developer", "content": "Be brief."}, USER]
    return await got(client.chat.completions.create(model="m", messages=messages))


@shape(OPENAI)
async def chat_stream(client: Any) -> Any:
    return await read(await got(client.chat.completions.create(**CHAT, stream=True)))


@shape(OPENAI)
async def chat_stream_with_usage(client: Any) -> Any:
    options = {"include_usage": True}
    return await read(await got(client.chat.completions.create(**CHAT, stream=True, stream_options=options)))


@shape(OPENAI)
async def chat_stream_in_a_block(client: Any) -> Any:
    async with entered(await got(client.chat.completions.create(**CHAT, stream=True))) as stream:
        return await read(stream)


@shape(OPENAI, reply=FIRST, partial=True)
async def chat_stream_left_early(client: Any) -> Any:
    async with entered(await got(client.chat.completions.create(**CHAT, stream=True))) as stream:
        return [await following(stream), await following(stream)]


@shape(OPENAI, reply=FIRST, partial=True)
async def chat_stream_closed(client: Any) -> Any:
    stream = await got(client.chat.completions.create(**CHAT, stream=True))
    events = [await following(stream), await following(stream)]
    await got(stream.close())
    return events


@shape(OPENAI, reply=FIRST, partial=True)
async def chat_stream_forgotten(client: Any) -> Any:
    stream = await got(client.chat.completions.create(**CHAT, stream=True))
    events = [await following(stream), await following(stream)]
    await got(stream.response.aclose() if hasattr(stream, "__anext__") else stream.response.close())
    del stream
    gc.collect()
    return events


@shape(OPENAI, reply=JSON_REPLY)
async def chat_parse(client: Any) -> Any:
    return await got(client.chat.completions.parse(**CHAT, response_format=Answer))


@shape(OPENAI, reply=JSON_REPLY)
async def chat_beta_parse(client: Any) -> Any:
    return await got(client.beta.chat.completions.parse(**CHAT, response_format=Answer))


@shape(OPENAI)
async def chat_helper(client: Any) -> Any:
    async with entered(client.chat.completions.stream(**CHAT)) as stream:
        return await read(stream)


@shape(OPENAI)
async def chat_helper_final(client: Any) -> Any:
    async with entered(client.chat.completions.stream(**CHAT)) as stream:
        return await got(stream.get_final_completion())


@shape(OPENAI)
async def chat_helper_until_done(client: Any) -> Any:
    async with entered(client.chat.completions.stream(**CHAT)) as stream:
        assert await got(stream.until_done()) is stream
        return stream.current_completion_snapshot


@shape(OPENAI, reply="", partial=True)
async def chat_helper_left_early(client: Any) -> Any:
    async with entered(client.chat.completions.stream(**CHAT)) as stream:
        return await following(stream)


@shape(OPENAI, reply=None)
async def chat_tool_call(client: Any) -> Any:
    return await got(client.chat.completions.create(**CHAT, tools=CHAT_TOOLS))


@shape(OPENAI, reply=None)
async def chat_tool_call_stream(client: Any) -> Any:
    return await read(await got(client.chat.completions.create(**CHAT, tools=CHAT_TOOLS, stream=True)))


@shape(OPENAI, user=None)
async def chat_tool_result(client: Any) -> Any:
    called = {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rain"}
    messages = [SYSTEM, USER, called, result]
    return await got(client.chat.completions.create(model="m", messages=messages, tools=CHAT_TOOLS))


@shape(OPENAI)
async def chat_with_options(client: Any) -> Any:
    return await got(client.with_options(timeout=9).chat.completions.create(**CHAT))


@shape(OPENAI)
async def chat_copied_twice(client: Any) -> Any:
    return await got(client.copy().with_options(max_retries=0).chat.completions.create(**CHAT))


@shape(OPENAI)
async def chat_raw(client: Any) -> Any:
    response = await got(client.chat.completions.with_raw_response.create(**CHAT))
    return response.text, response.parse()


@shape(OPENAI)
async def chat_raw_client(client: Any) -> Any:
    return (await got(client.with_raw_response.chat.completions.create(**CHAT))).parse()


@shape(OPENAI, reply=JSON_REPLY)
async def chat_raw_parse(client: Any) -> Any:
    response = await got(client.chat.completions.with_raw_response.parse(**CHAT, response_format=Answer))
    return response.parse()


@shape(OPENAI)
async def chat_raw_stream(client: Any) -> Any:
    response = await got(client.chat.completions.with_raw_response.create(**CHAT, stream=True))
    return response.status_code, await read(response.parse())


RESPONSE: dict[str, Any] = {"model": "m", "instructions": "Be brief.", "input": SAID}
RESPONSE_TOOLS = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]


@shape(OPENAI)
async def responses_create(client: Any) -> Any:
    return await got(client.responses.create(**RESPONSE))


@shape(OPENAI)
async def responses_create_with_items(client: Any) -> Any:
    parts = [{"type": "input_text", "text": SAID}]
    return await got(client.responses.create(model="m", input=[{"role": "user", "content": parts}]))


@shape(OPENAI)
async def responses_stream(client: Any) -> Any:
    return await read(await got(client.responses.create(**RESPONSE, stream=True)))


@shape(OPENAI, reply=FIRST, partial=True)
async def responses_stream_left_early(client: Any) -> Any:
    async with entered(await got(client.responses.create(**RESPONSE, stream=True))) as stream:
        return [await following(stream) for _ in range(4)]


@shape(OPENAI, reply=JSON_REPLY)
async def responses_parse(client: Any) -> Any:
    return await got(client.responses.parse(**RESPONSE, text_format=Answer))


@shape(OPENAI)
async def responses_helper(client: Any) -> Any:
    async with entered(client.responses.stream(**RESPONSE)) as stream:
        return await read(stream)


@shape(OPENAI)
async def responses_helper_final(client: Any) -> Any:
    async with entered(client.responses.stream(**RESPONSE)) as stream:
        return await got(stream.get_final_response())


@shape(OPENAI, reply=None)
async def responses_tool_call(client: Any) -> Any:
    return await got(client.responses.create(**RESPONSE, tools=RESPONSE_TOOLS))


@shape(OPENAI, user=None, reply="You said: ")
async def responses_tool_result(client: Any) -> Any:
    result = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
    return await got(client.responses.create(model="m", previous_response_id="resp_0", input=[result]))


@shape(OPENAI)
async def responses_raw(client: Any) -> Any:
    return (await got(client.responses.with_raw_response.create(**RESPONSE))).parse()


@shape(OPENAI)
async def responses_beta(client: Any) -> Any:
    return await got(client.beta.responses.create(**RESPONSE))


MESSAGE: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [USER]}
CACHED = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}
MESSAGE_TOOLS = [{"name": "weather", "input_schema": {"type": "object"}}]


@shape(ANTHROPIC)
async def messages_create(client: Any) -> Any:
    return await got(client.messages.create(**MESSAGE))


@shape(ANTHROPIC)
async def messages_create_with_a_system_text(client: Any) -> Any:
    return await got(client.messages.create(**MESSAGE, system="Be brief."))


@shape(ANTHROPIC)
async def messages_create_with_system_blocks(client: Any) -> Any:
    return await got(client.messages.create(**MESSAGE, system=[CACHED]))


@shape(ANTHROPIC)
async def messages_create_with_a_begun_reply(client: Any) -> Any:
    begun = {"role": "assistant", "content": "Well,"}
    return await got(client.messages.create(model="m", max_tokens=9, messages=[USER, begun]))


@shape(ANTHROPIC)
async def messages_stream(client: Any) -> Any:
    return await read(await got(client.messages.create(**MESSAGE, stream=True)))


@shape(ANTHROPIC, reply=FIRST, partial=True)
async def messages_stream_left_early(client: Any) -> Any:
    async with entered(await got(client.messages.create(**MESSAGE, stream=True))) as stream:
        return [await following(stream) for _ in range(3)]


@shape(ANTHROPIC)
async def messages_helper(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE, system=[CACHED])) as stream:
        return await read(stream)


@shape(ANTHROPIC)
async def messages_helper_texts(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE)) as stream:
        return await read(stream.text_stream)


@shape(ANTHROPIC, reply=FIRST, partial=True)
async def messages_helper_texts_left_early(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE)) as stream:
        return await following(stream.text_stream)


@shape(ANTHROPIC)
async def messages_helper_final(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE)) as stream:
        return await got(stream.get_final_message()), await got(stream.get_final_text())


@shape(ANTHROPIC, reply=None)
async def messages_tool_use(client: Any) -> Any:
    return await got(client.messages.create(**MESSAGE, tools=MESSAGE_TOOLS))


@shape(ANTHROPIC, reply=None)
async def messages_tool_use_helper(client: Any) -> Any:
    async with entered(client.messages.stream(**MESSAGE, tools=MESSAGE_TOOLS)) as stream:
        return await got(stream.get_final_message())


@shape(ANTHROPIC, user=None)
async def messages_tool_result(client: Any) -> Any:
    used = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
    later = [
        {"role": "assistant", "content": [used]},
        {"role": "user", "content": [result, {"type": "text", "text": SAID}]},
    ]
    return await got(client.messages.create(model="m", max_tokens=9, messages=[USER, *later], tools=MESSAGE_TOOLS))


@shape(ANTHROPIC, reply=JSON_REPLY)
async def messages_parse(client: Any) -> Any:
    return await got(client.messages.parse(**MESSAGE, output_format=Answer))


@shape(ANTHROPIC)
async def messages_raw(client: Any) -> Any:
    return await got((await got(client.messages.with_raw_response.create(**MESSAGE))).parse())


@shape(ANTHROPIC)
async def messages_raw_stream(client: Any) -> Any:
    response = await got(client.messages.with_raw_response.create(**MESSAGE, stream=True))
    return await read(await got(response.parse()))


@shape(ANTHROPIC)
async def messages_beta(client: Any) -> Any:
    return await got(client.beta.messages.create(**MESSAGE))


@shape(ANTHROPIC)
async def messages_beta_helper(client: Any) -> Any:
    async with entered(client.beta.messages.stream(**MESSAGE)) as stream:
        return await got(stream.get_final_message())


@shape(ANTHROPIC)
async def messages_with_options(client: Any) -> Any:
    return await got(client.with_options(timeout=9).messages.create(**MESSAGE))
