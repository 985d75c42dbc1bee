"""The memsy provider and Memsy's SDK: what of it is used, and that its slow parts run beside the event loop."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
from pathlib import Path
from typing import Any

import memsy
import pytest
from openproto_adapters.memsy import Memsy
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.memsy import Memsy as Emulator
from sdk_signatures import check_signatures

from openproto import AsyncMemory, Memory, NotFoundError, RateLimitedError

WHERE = """
import asyncio, sys, threading

importers, connecting = set(), set()

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("memsy.", "httpx.")):  # the packages alone are looked up, and not imported
            importers.add(threading.current_thread().name)

sys.meta_path.insert(0, Watch())

import ssl
create = ssl.create_default_context
def created(*args, **kwargs):
    connecting.add(threading.current_thread().name)
    return create(*args, **kwargs)
ssl.create_default_context = created

from openproto import AsyncMemory
from openproto_adapters.memsy import Memsy

unopened = Memsy(sys.argv[1], api_key=sys.argv[2], path=sys.argv[3])
assert not importers, "imported before anything was opened"

async def main():
    async with AsyncMemory(unopened) as memory:
        await memory.add("tea", user_id="ann")

asyncio.run(main())
for where in (importers, connecting):
    assert where and all(name.startswith("openproto-memsy") for name in where), where
"""


def test_the_sdk_has_the_signatures_that_the_adapter_relies_on() -> None:
    check_signatures(Path(__file__).parent / "sdk_signatures.json")


def test_the_installed_sdk_is_one_that_was_tried() -> None:
    assert importlib.metadata.version("memsy") == Memsy.tested_with


@pytest.mark.parametrize("client", [memsy.MemsyClient, memsy.AsyncMemsyClient])
def test_the_sdk_still_has_no_way_to_delete_or_change(client: type) -> None:
    names = {name for name in dir(client) if not name.startswith("_")}
    assert names == {"close", "health", "ingest", "search", "status"}, "there is more now: is anything native?"
    for resource in ("MemoriesResource", "AsyncMemoriesResource"):
        module: Any = importlib.import_module("memsy.resources.memories")
        methods = {name for name, _ in inspect.getmembers(getattr(module, resource), inspect.isfunction)}
        assert methods - {"__init__"} == {"get", "list", "stats"}


def test_the_sdk_is_imported_when_a_client_opens_and_never_on_the_loop(
    run_python: Any, emulator: Emulator, path: Path
) -> None:
    ended = run_python(WHERE, f"{emulator.url}/v1", emulator.api_key, path)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.promise(26, 35, 41)
async def test_the_sync_client_does_the_same_and_fails_the_same(
    memory: AsyncMemory, emulator: Emulator, path: Path
) -> None:
    def in_thread() -> Any:
        with Memory(Memsy(**emulator.provider_options(), path=path), retries=0) as sync:
            added = sync.add("tea", user_id="ann", tags=["x"])
            (done,) = sync.wait_for_ingest([added.id], "ann", timeout=10)
            hits = sync.search("tea", "ann")
            with pytest.raises(NotFoundError):
                sync.get("no-such-id")
            emulator.faults.next(Status(429), path="/v1/search")
            with pytest.raises(RateLimitedError):
                sync.search("tea", "ann")
            return done, hits

    done, hits = await asyncio.to_thread(in_thread)
    assert await memory.get(done.id) == done
    assert await memory.search("tea", "ann") == hits
