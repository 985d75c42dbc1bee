"""An agent that calls tools until it has an answer: what the user said is captured once, however long the loop."""

import asyncio
from typing import Any

from openai import AsyncOpenAI

from openproto import AsyncMemory
from openproto.integrations.llm import wrap

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather in a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


async def weather(arguments: str) -> str:
    return "rain"  # your tool goes here


async def answer(llm: AsyncOpenAI, question: str) -> str | None:
    messages: list[Any] = [{"role": "user", "content": question}]
    while True:
        completion = await llm.chat.completions.create(model="gpt-5-mini", messages=messages, tools=TOOLS)
        reply = completion.choices[0].message
        calls = [call for call in reply.tool_calls or () if call.type == "function"]
        if not calls:
            return reply.content
        messages.append(reply)
        results = await asyncio.gather(*(weather(call.function.arguments) for call in calls))
        for call, result in zip(calls, results, strict=True):
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


async def main() -> None:
    async with AsyncMemory.from_env() as memory, AsyncOpenAI() as client:
        llm = wrap(client, memory, user_id="ada", scope="agent/forecaster")
        print(await answer(llm, "I live in Oslo. Do I need an umbrella?"))
    # Closing the memory has stored what was captured.
    async with AsyncMemory.from_env() as memory:
        async for record in memory.iter("ada"):
            print(f"{record.tags[0]}: {record.content}")


if __name__ == "__main__":
    asyncio.run(main())
