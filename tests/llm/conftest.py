"""What the tests of memory around LLM clients share: a model on a socket, a backend, and clients that end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from fake_llm import FakeLLM
from openai import AsyncOpenAI, OpenAI
from remembering_shelf import KNOWN, Shelf

from openproto import Memory
from openproto.integrations.llm import CaptureQueue


@pytest.fixture
def llm() -> Iterator[FakeLLM]:
    with FakeLLM() as server:
        yield server


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(KNOWN)


@pytest.fixture
def memory(shelf: Shelf) -> Iterator[Memory]:
    with Memory(shelf) as client:
        CaptureQueue(client, keep="both")  # which is the one that CaptureQueue.of finds from now on
        yield client


@pytest.fixture
def gpt(llm: FakeLLM) -> Iterator[OpenAI]:
    with OpenAI(base_url=llm.openai_url, api_key="k") as client:
        yield client


@pytest.fixture
async def async_gpt(llm: FakeLLM) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=llm.openai_url, api_key="k", timeout=60) as client:
        yield client
