"""Connections on which somebody answers twice, not at all, or to another call: nothing wrong comes out of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hosted import Hosted
from middlebox import Middlebox, middlebox

from openproto import AsyncMemory, MemoryRecord, NotFoundError, OpenProtoError, ProviderError


@pytest.fixture
def box(emulator: Any) -> Iterator[Middlebox]:
    """A middlebox before the vendor."""
    with middlebox(emulator.url) as running:
        yield running


@pytest.fixture
async def memory(hosted: Hosted, emulator: Any, box: Middlebox) -> AsyncIterator[AsyncMemory]:
    """A client that reaches the vendor through the middlebox, for each memory that it gets."""
    emulator.lag = 0.0
    options = emulator.provider_options()
    options["base_url"] = options["base_url"].replace(emulator.url, box.url)
    async with AsyncMemory(hosted.name, retries=0, **options) as client:
        yield client


async def stored(memory: AsyncMemory) -> list[MemoryRecord]:
    added = [await memory.add(f"note number {n}", user_id="ann") for n in range(4)]
    return [await memory.get(record.id) for record in added]


@pytest.mark.parametrize("fault", ["twice", "twice later"])
async def test_an_answer_that_comes_twice_ends_its_connection(memory: AsyncMemory, box: Middlebox, fault: Any) -> None:
    records = await stored(memory)
    box.fault, before, refused = fault, box.connections, 0
    for _ in range(3):
        for record in records:
            box.repeated.clear()
            try:
                assert (await memory.get(record.id, user_id="ann")).content == record.content
            except ProviderError:
                refused += 1
            assert await asyncio.to_thread(box.repeated.wait, 5)
    # What comes while another request waits cannot be told from its answer, but by what it says.
    assert refused <= (3 if fault == "twice later" else 0)
    assert box.connections > before
    box.fault = ""
    assert (await memory.get(records[0].id)).content == records[0].content


async def test_a_dropped_answer_is_an_error_and_the_next_call_works(memory: AsyncMemory, box: Middlebox) -> None:
    records = await stored(memory)
    box.fault = "drop"
    for record in records:
        with pytest.raises(OpenProtoError) as caught:
            await memory.get(record.id)
        assert not isinstance(caught.value, NotFoundError)
    box.fault = ""
    assert (await memory.get(records[0].id)).content == records[0].content


async def test_answers_that_change_places_never_show_one_memory_as_another(memory: AsyncMemory, box: Middlebox) -> None:
    records = await stored(memory)
    box.fault = "swap"
    for _ in range(3):
        got = await asyncio.gather(*(memory.get(record.id) for record in records), return_exceptions=True)
        for record, outcome in zip(records, got, strict=True):
            if not isinstance(outcome, OpenProtoError):
                assert isinstance(outcome, MemoryRecord), outcome
                assert outcome.content == record.content
    box.fault = ""
    assert [(await memory.get(record.id)).content for record in records] == [one.content for one in records]
