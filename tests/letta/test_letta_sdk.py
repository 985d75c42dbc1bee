"""The letta provider and Letta's SDK: what of it is used, and that its slow parts run beside the event loop."""

from __future__ import annotations

import importlib.metadata
import threading
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.letta import Letta, api, provider
from openproto_conformance.emulators.letta import Letta as Emulator
from sdk_signatures import check_signatures

from openproto import AsyncMemory

WHERE = """
import asyncio, sys, threading

importers = set()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("letta_client.", "httpx.")):  # the packages alone are looked up, and not imported
            importers.add(threading.current_thread().name)

sys.meta_path.insert(0, Watch())

from openproto import AsyncMemory
from openproto_adapters.letta import Letta

unopened = Letta(base_url=sys.argv[1], api_key=sys.argv[2])
assert not importers, "imported before anything was opened"

async def main():
    async with AsyncMemory(unopened) as memory:
        await memory.add("tea", user_id="ann")

asyncio.run(main())
assert importers and all(name.startswith("openproto-letta") for name in importers), importers
"""


def test_the_sdk_has_the_signatures_that_the_adapter_relies_on() -> None:
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_sdk_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("letta-client") == Letta.tested_with


def test_the_sdk_is_imported_when_a_client_opens_and_never_on_the_loop(run_python: Any, emulator: Emulator) -> None:
    ended = run_python(WHERE, emulator.url, emulator.api_key)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_large_answers_are_read_beside_the_loop(memory: AsyncMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    await memory.add_many([{"content": f"note {n}", "user_id": "ann"} for n in range(30)])
    ran: set[tuple[str, threading.Thread]] = set()

    def watched(module: Any, name: str) -> None:
        function = getattr(module, name)

        def watch(*arguments: Any, **options: Any) -> Any:
            ran.add((name, threading.current_thread()))
            return function(*arguments, **options)

        monkeypatch.setattr(module, name, watch)

    watched(api, "_answered")
    watched(provider, "memories")
    assert len((await memory.list("ann", limit=30)).items) == 30
    assert len(await memory.search("note", "ann", limit=30)) == 30
    assert {name for name, _ in ran} == {"_answered", "memories"}
    assert threading.current_thread() not in {thread for _, thread in ran}


def test_a_provider_that_was_never_opened_says_so() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        Letta().store_name()
