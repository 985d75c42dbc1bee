"""mem0's package: what of it is used, when it is imported, and what its calls cost the loop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time
from pathlib import Path
from typing import Any

from openproto_adapters.mem0 import Mem0
from openproto_adapters.mem0.quiet_import import import_mem0
from sdk_signatures import check_signatures

from openproto import AsyncMemory

STALL = 0.02
"""Seconds: PROTOCOL 4.6."""
ATTEMPTS = 5


def test_the_sdk_has_the_signatures_that_the_adapter_relies_on() -> None:
    import_mem0()
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_sdk_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("mem0ai") == Mem0.tested_with


def test_mem0_is_imported_when_the_client_opens_and_not_before(run_python: Any) -> None:
    program = """
import sys
from openproto import AsyncMemory
AsyncMemory("mem0"), AsyncMemory("mem0", api_key="k")
assert not {"mem0", "qdrant_client", "httpx", "numpy"} & set(sys.modules), "imported too early"
"""
    ran = run_python(program)
    assert ran.returncode == 0, ran.stderr


async def test_calls_do_not_hold_up_the_loop(folder: Path) -> None:
    async def longest_pause(calls: asyncio.Future[Any]) -> float:
        longest = 0.0
        while not calls.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)
        return longest

    async with AsyncMemory("mem0", path=folder) as memory:
        await memory.add_many([{"content": f"note {n} about rivers", "user_id": "ann"} for n in range(300)])
        best = 1.0
        for _ in range(ATTEMPTS):  # the machine may be busy; a provider that blocks does so every time
            reads = (memory.search("rivers", "ann", limit=100), memory.list("ann", limit=300))
            best = min(best, await longest_pause(asyncio.gather(*reads, memory.add("more", user_id="ann"))))
        assert best < STALL
