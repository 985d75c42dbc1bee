"""Connections on which somebody answers twice, not at all, or to another call: nothing wrong comes out of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from middlebox import Middlebox, middlebox
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.letta import Letta
from openproto_conformance.emulators.mem0 import Mem0Platform
from openproto_conformance.emulators.memorysync import MemorySync
from openproto_conformance.emulators.memsy import Memsy
from openproto_conformance.emulators.supermemory import Supermemory

from openproto import AsyncMemory, MemoryRecord, NotFoundError, OpenProtoError

VENDORS: dict[str, Callable[[], Emulator]] = {
    "letta": Letta,
    "mem0": lambda: Mem0Platform(lag=0),
    "memorysync": MemorySync,
    "memsy": lambda: Memsy(lag=0),
    "supermemory": lambda: Supermemory(lag=0),
}


@pytest.fixture(params=VENDORS)
def parts(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, Any], Middlebox]]:
    """A vendor's name, the options of a client that reaches its emulator through a middlebox, and that."""
    with ExitStack() as stack:
        emulator = stack.enter_context(VENDORS[request.param]())
        box = stack.enter_context(middlebox(emulator.url))
        options = emulator.provider_options()
        options["base_url"] = options["base_url"].replace(emulator.url, box.url)
        yield request.param, options, box


async def stored(memory: AsyncMemory) -> list[MemoryRecord]:
    added = [await memory.add(f"note number {n}", user_id="ann") for n in range(4)]
    return [await memory.get(record.id) for record in added]


@pytest.mark.parametrize("fault", ["twice", "twice later"])
async def test_an_answer_that_comes_twice_ends_its_connection(
    parts: tuple[str, dict[str, Any], Middlebox], fault: Any
) -> None:
    vendor, options, box = parts
    async with AsyncMemory(vendor, retries=0, **options) as memory:
        records = await stored(memory)
        box.fault, before = fault, box.connections
        for _ in range(3):
            for record in records:
                box.repeated.clear()
                assert (await memory.get(record.id, user_id="ann")).content == record.content
                assert await asyncio.to_thread(box.repeated.wait, 5)
        assert box.connections > before
        box.fault = ""
        assert (await memory.get(records[0].id)).content == records[0].content


async def test_an_answer_that_is_dropped_is_an_error_and_the_next_call_works(
    parts: tuple[str, dict[str, Any], Middlebox],
) -> None:
    vendor, options, box = parts
    async with AsyncMemory(vendor, retries=0, **options) as memory:
        records = await stored(memory)
        box.fault = "drop"
        for record in records:
            with pytest.raises(OpenProtoError) as caught:
                await memory.get(record.id)
            assert not isinstance(caught.value, NotFoundError)
        box.fault = ""
        assert (await memory.get(records[0].id)).content == records[0].content


async def test_answers_that_change_places_never_show_one_memory_as_another(
    parts: tuple[str, dict[str, Any], Middlebox],
) -> None:
    vendor, options, box = parts
    async with AsyncMemory(vendor, retries=0, **options) as memory:
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
