"""The supermemory provider and Supermemory's SDK: what of it is used, when it is imported, what it costs the loop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import time
from pathlib import Path
from typing import Any

from openproto_adapters.supermemory import Supermemory
from openproto_conformance.emulators.supermemory import Supermemory as Emulator
from sdk_signatures import check_signatures

from openproto import AsyncMemory

STALL = 0.02
"""Seconds: PROTOCOL 4.6."""
ATTEMPTS = 10
"""The machine may be busy; a provider that blocks does so every time."""


def test_the_sdk_has_the_signatures_that_the_adapter_relies_on() -> None:
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_sdk_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("supermemory") == Supermemory.tested_with


def test_the_sdk_is_imported_when_the_client_opens_and_not_before(run_python: Any) -> None:
    program = """
import sys
from openproto import AsyncMemory
AsyncMemory("supermemory", api_key="k")
assert not {"supermemory", "httpx"} & set(sys.modules), "imported too early"
"""
    ran = run_python(program)
    assert ran.returncode == 0, ran.stderr


def test_the_sdk_is_imported_in_a_thread_of_the_providers_own(run_python: Any) -> None:
    program = """
import asyncio, sys, threading
from openproto import AsyncMemory

importers = set()

def watch(event, arguments):
    if event == "import" and arguments[0].partition(".")[0] in ("supermemory", "httpx", "httpcore"):
        importers.add(threading.current_thread().name.rpartition("_")[0])

sys.addaudithook(watch)

async def main():
    async with AsyncMemory("supermemory", base_url=sys.argv[1], api_key=sys.argv[2]) as memory:
        await memory.add("tea", user_id="ada")

asyncio.run(main())
assert importers == {"openproto-supermemory"}, importers
"""
    with Emulator() as emulator:
        ran = run_python(program, emulator.url, emulator.api_key)
    assert ran.returncode == 0, ran.stderr


ELSEWHERE = """
import json, sys
from openproto_conformance.emulators.supermemory import Supermemory
with Supermemory(lag=0.0) as emulator:
    print(json.dumps(emulator.provider_options()), flush=True)
    sys.stdin.read()
"""


async def test_calls_do_not_hold_up_the_loop(start_python: Any) -> None:
    async def longest_pause(calls: asyncio.Future[Any]) -> float:
        longest = 0.0
        while not calls.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)
        return longest

    options = json.loads(start_python(ELSEWHERE).stdout.readline())  # in this process it would be measured, too
    async with AsyncMemory("supermemory", **options) as memory:
        added = await memory.add_many([{"content": f"note {n} about rivers", "user_id": "ada"} for n in range(300)])
        await memory.wait_for_ingest([getattr(outcome, "id", "") for outcome in added], "ada")
        best = 1.0
        for _ in range(ATTEMPTS):
            reads = (memory.search("rivers", "ada", limit=100), memory.list("ada", limit=100))
            best = min(best, await longest_pause(asyncio.gather(*reads, memory.add("more", user_id="ada"))))
        assert best < STALL
