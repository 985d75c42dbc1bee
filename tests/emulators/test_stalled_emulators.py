"""An emulator that is stalled, as the conformance suite has it, finishes no add, and does everything else."""

from __future__ import annotations

import asyncio

import pytest
from openproto_conformance.emulators.registry import EMULATORS, emulator_class

from openproto import AsyncMemory


@pytest.mark.parametrize("name", EMULATORS)
async def test_a_stalled_emulator_answers_what_is_no_add(name: str) -> None:
    with emulator_class(name)() as vendor:
        async with AsyncMemory(name, **vendor.provider_options()) as memory:
            record = await memory.add("tea", user_id="ann")
            with vendor.stalled():
                adding = asyncio.ensure_future(memory.add("coffee", user_id="ann"))
                async with asyncio.timeout(5.0):
                    assert (await memory.get(record.id)).content == "tea"
                    assert {hit.memory.id for hit in await memory.search("tea", "ann")} <= {record.id}
                assert not adding.done()
            assert (await adding).content == "coffee"
