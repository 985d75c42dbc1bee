"""How to test an application that remembers, with pytest-asyncio: wait for the queue, then look at the memory."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from openai import AsyncOpenAI

from openproto import AsyncMemory
from openproto.integrations.llm import CaptureQueue, wrap


@pytest_asyncio.fixture
async def memory(tmp_path: Path) -> AsyncIterator[AsyncMemory]:
    async with AsyncMemory("sqlite", path=str(tmp_path / "memory.db")) as client:
        yield client


async def my_app(memory: AsyncMemory, user: str, message: str) -> str:
    async with AsyncOpenAI() as client:
        llm = wrap(client, memory, user_id=user)
        response = await llm.responses.create(model="gpt-5-mini", input=message)
        return response.output_text


@pytest.mark.asyncio
async def test_my_app_remembers_its_user_and_nobody_else(memory: AsyncMemory) -> None:
    await my_app(memory, "ada", "I live in Oslo")
    assert await CaptureQueue.of(memory).flush(timeout=10)

    found = await memory.search("Where do I live?", "ada", limit=1)
    assert "Oslo" in found[0].memory.content
    assert (await memory.list("bob")).items == []
