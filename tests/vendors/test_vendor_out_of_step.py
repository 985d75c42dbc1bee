"""A connection on which somebody answers twice is not used again: nothing wrong comes out of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hosted import Hosted
from middlebox import middlebox

from openproto import AsyncMemory, ProviderError


@pytest.mark.parametrize("fault", ["twice", "twice later"])
async def test_an_answer_that_comes_twice_ends_its_connection(hosted: Hosted, emulator: Any, fault: Any) -> None:
    emulator.lag, refused = 0.0, 0
    options = emulator.provider_options()
    with middlebox(emulator.url) as box:
        options["base_url"] = options["base_url"].replace(emulator.url, box.url)
        async with AsyncMemory(hosted.name, retries=0, **options) as memory:
            added = [await memory.add(f"note number {n}", user_id="ann") for n in range(4)]
            records = [await memory.get(record.id) for record in added]
            box.fault, before = fault, box.connections
            for record in records * 3:
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
