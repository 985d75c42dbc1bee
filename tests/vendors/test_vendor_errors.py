"""Every vendor's writes, error statuses, options, openings and endings, and its SDK: which, and when it is imported."""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from hosted import HOSTED, STATUSES, Hosted
from openproto_adapters.mem0.quiet_import import import_mem0
from openproto_conformance.emulators import CloseConnection, Hang, ResetConnection, Status

from openproto import AsyncMemory, MemoryRecord, errors
from openproto.registry import make_provider, provider_class

SECRET = "the secret of the mountain"
WRONG_KEY = "sk-correct-horse"


async def test_a_status_is_an_error_without_its_words(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    await memory.add("tea", user_id="ann")
    for status, expected in {**STATUSES, **hosted.statuses}.items():
        for path, call in (
            (emulator.add_path, lambda: memory.add(SECRET, user_id="ann")),
            (hosted.search, lambda: memory.search(SECRET, "ann")),
        ):
            fault = Status(status, body={"detail": f"not with {SECRET}"})
            with emulator.faults.always(fault, method="POST", path=path), pytest.raises(expected) as caught:
                await call()
            error = caught.value
            assert (type(error), error.retryable, error.provider) == (expected, expected.retryable, hosted.name)
            assert (error.__cause__ is not None, SECRET in str(error)) == (True, False)


async def test_retry_after_is_known_where_it_is_passed_on(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    await memory.add("tea", user_id="ann")
    for body, header, expected in (
        ({"error": {"code": "RATE_LIMIT_EXCEEDED", "retry_after": 7}}, "7", 7.0),
        ({"retry_after": 0}, "tomorrow", None),
        ({"detail": {"error": "usage_limit_exceeded"}}, "", None),
    ):
        emulator.faults.next(Status(429, body, headers={"retry-after": header}), path=hosted.search)
        with pytest.raises(errors.RateLimitedError) as caught:
            await memory.search("tea", "ann")
        assert caught.value.retry_after == (expected if hosted.says_when_to_return else None)


async def test_a_write_is_sent_once(hosted: Hosted, memory: AsyncMemory, emulator: Any, tmp_path: Path) -> None:
    await memory.add("first", user_id="ann")
    for fault in (Status(409), Status(429), Status(503), CloseConnection(applied=False)):
        before = emulator.counters.requests
        emulator.faults.next(fault, method="POST", path=emulator.add_path)
        with pytest.raises(errors.OpenProtoError):
            await memory.add("tea", user_id="ann")
        assert emulator.counters.requests == before + 1
    async with hosted.client(emulator, tmp_path, retries=2) as patient:
        for fault in (CloseConnection(applied=True), ResetConnection(applied=True)):
            emulator.faults.next(fault, method="POST", path=emulator.add_path)
            await patient.add(f"tea {fault}", user_id="ann")
        assert len([record async for record in patient.iter("ann")]) == 3


async def test_a_batch_is_few_requests_in_order(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    route, first, second = hosted.batch
    items = [{"content": f"note {n}", "user_id": user} for user in ("ann", "bob") for n in range(60)]
    outcomes = await memory.add_many(items)
    written = [(one.content, one.user_id) for one in outcomes if isinstance(one, MemoryRecord)]
    assert written == [(item["content"], item["user_id"]) for item in items]
    if route:
        assert emulator.counters.by_route[route] == first + second
        assert emulator.counters.by_route[hosted.adds] in (0, first + second)


async def test_a_write_can_wait_until_it_is_processed(
    hosted: Hosted, other: AsyncMemory, emulator: Any, tmp_path: Path
) -> None:
    emulator.lag = 0.1
    async with hosted.client(emulator, tmp_path, **({"wait": hosted.wait} if hosted.wait else {})) as memory:
        record = await memory.add("one", user_id="ann")
        several = await memory.add_many([{"content": text, "user_id": "ann"} for text in ("two", "three")])
        changed = await memory.update(record.id, content="four")
        at_once = bool(hosted.wait) or not hosted.processes_later
        assert [getattr(one, "status", one) == "done" for one in (record, *several, changed)] == [at_once] * 4
        if hosted.wait:
            emulator.lag = 0.5
            adding = asyncio.create_task(memory.add("milk", user_id="bob"))
            while not (found := (await other.list("bob")).items):
                await asyncio.sleep(0.01)
            await other.delete(found[0].id)
            assert (await adding).content == "milk"
            emulator.lag = 60.0
            with pytest.raises(TimeoutError):  # which cancels it at once
                await asyncio.wait_for(memory.add("tea", user_id="ann"), 0.5)


async def test_a_memory_is_done_when_a_search_shows_it_whoever_wrote_it(
    memory: AsyncMemory, other: AsyncMemory, emulator: Any
) -> None:
    emulator.lag = 0.3
    record = await memory.add("tea", user_id="ann")
    for content, asked in (("tea", other), ("green tea", memory), ("black tea", other)):
        if content != record.content:
            record = await other.update(record.id, content=content)
        (done,) = await asked.wait_for_ingest([record.id], "ann", timeout=5)
        assert [hit.memory for hit in await asked.search("tea", "ann")] == [done]
        assert done.content == content


async def test_a_failed_opening_says_why(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    for change, expected in (
        ({"api_key": WRONG_KEY}, errors.UnauthorizedError),
        ({"api_key": WRONG_KEY, "base_url": "http://127.0.0.1:1"}, errors.ProviderUnavailableError),
    ):
        provider = hosted.make(emulator, tmp_path, **change)
        with pytest.raises(expected) as caught:
            await provider.open()
        assert WRONG_KEY not in f"{caught.value!r} {provider!r}"
    provider = hosted.make(emulator, tmp_path)
    with emulator.faults.always(Status(503)), pytest.raises(errors.OpenProtoError):
        await provider.open()
    for verb in (provider.health, provider.describe):
        with pytest.raises(RuntimeError, match=f"the {hosted.name} provider is not open"):
            await verb()
    async with AsyncMemory(provider) as memory:
        assert (await memory.put("water", user_id="ann", key="drink")).key == "drink"
    with pytest.raises(errors.ProviderUnavailableError, match="closed while"):
        await provider.health()
    with pytest.raises(RuntimeError, match="is not open"):
        await provider.fresh().health()


WIDTH = 4


async def test_cancelled_and_closed_calls_hold_nothing(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    async def under_way(count: int) -> None:
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.in_flight == count)

    client = hosted.client(emulator, tmp_path, close_timeout=0.5, timeout=None, **{hosted.width: WIDTH})
    await client.add("first", user_id="ann")
    with emulator.faults.always(Hang(), method="POST"):
        calls = [asyncio.create_task(client.add(f"note {n}", user_id="ann")) for n in range(50)]
        calls += [asyncio.create_task(client.search("tea", "ann")) for n in range(50)]
        await under_way(WIDTH)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        await under_way(0)
        assert emulator.counters.max_in_flight == WIDTH
        searches = [asyncio.create_task(client.search("tea", "ann")) for _ in range(WIDTH)]
        await under_way(WIDTH)
        await client.aclose()
        await asyncio.wait(searches)
        assert {type(call.exception()) for call in searches} == {errors.ProviderUnavailableError}
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.open == 0)
    assert sum(thread.name.startswith(f"openproto-{hosted.name}") for thread in threading.enumerate()) <= WIDTH


async def test_the_environment_has_key_and_address(
    hosted: Hosted, emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = emulator.provider_options()
    for variable, option in hosted.variables.items():
        monkeypatch.delenv(variable, raising=False)
        given = options.pop(option)
        if option == "api_key":
            with pytest.raises(errors.UnauthorizedError, match=variable):
                await hosted.provider(**options).open()
        monkeypatch.setenv(variable, given)
    assert emulator.counters.requests == 0
    async with AsyncMemory(hosted.provider(**options)) as memory:
        await memory.add("tea", user_id="ann")
    assert emulator.counters.by_route[hosted.adds] == 1


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        *((one.name, {"api_key": "k", one.width: 0}, one.width) for one in HOSTED),
        ("memori", {"width": 0}, "width"),
        ("letta", {"base_url": "http://127.0.0.1", "environment": "local"}, "not both"),
        ("mem0", {"api_key": "k", "path": "x"}, "of the library"),
        ("mem0", {"config": {"embedder": {"provider": "openai"}}, "embedder": "local"}, "not both"),
        ("mem0", {"infer": True}, "needs a language model"),
        ("mem0", {"embedder": "lokal"}, "no embedder 'lokal'"),
        ("memorysync", {"api_key": "kéy"}, "api_key must be visible ASCII"),
        ("memorysync", {"api_key": "a\r\nb"}, "api_key must be visible ASCII"),
        ("memorysync", {"project_id": "a b"}, "project_id"),
        ("memorysync", {"timeout": 0}, "timeout"),
        ("memsy", {"base_url": "https://ann:kéy@example.com/v1"}, "base_url must not hold"),
        ("memsy", {"wait": -1}, "wait"),
        ("supermemory", {"base_url": "https://ann:kéy@example.com"}, "base_url must not hold"),
        ("supermemory", {"task_type": "both"}, "task_type"),
        ("supermemory", {"dreaming": "instant"}, "task_type='memory'"),
        ("supermemory", {"task_type": "memory", "dreaming": "lucid"}, "dreaming"),
        ("supermemory", {"wait": "done"}, "wait"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        make_provider(name, options)
    assert "kéy" not in str(caught.value)


SIGNATURES = Path(__file__).parent / "signatures"
UNOPENED: Mapping[str, dict[str, str]] = {
    "letta": {"api_key": "k"},
    "mem0": {},
    "memori": {"url": "postgresql://app@db/memory"},
    "memorysync": {"api_key": "k"},
    "memsy": {"base_url": "https://127.0.0.1:1/v1", "api_key": "k"},
    "supermemory": {"api_key": "k"},
}


SDKS = ("letta_client", "mem0", "memori", "memori_python", "memorysync", "memsy", "supermemory")
CONSTRUCTED = """
import json, sys
from openproto import AsyncMemory
for name, options in json.loads(sys.argv[1]).items():
    AsyncMemory(name, **options)
print(*sys.modules)
"""


def unqualified(text: str) -> str:
    """Drop addresses, and the modules of types: one SDK renames httpx's when it is imported, and so for all others."""
    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+(\w+)", r"\1", re.sub(r" at 0x[0-9a-f]+", "", text))


@pytest.mark.parametrize("name", [path.stem for path in sorted(SIGNATURES.glob("*.json"))])
def test_an_sdk_has_the_signatures_that_its_adapter_relies_on(name: str) -> None:
    import_mem0()  # or its import writes and sends
    expected: Mapping[str, str] = json.loads((SIGNATURES / f"{name}.json").read_text())
    installed = {entry: unqualified(str(inspect.signature(resolve_name(entry)))) for entry in expected}
    wanted = {entry: unqualified(text) for entry, text in expected.items()}
    assert installed == wanted, f"the SDK has changed: try the adapter with it, then bring {name}.json up to date"


@pytest.mark.parametrize("name", UNOPENED)
def test_the_installed_sdk_is_one_that_was_tried(name: str) -> None:
    provider: Any = provider_class(name)
    assert importlib.metadata.version(provider.sdk) == provider.tested_with


def test_no_sdk_is_imported_before_a_client_opens(run_python: Any) -> None:
    ran = run_python(CONSTRUCTED, json.dumps({**UNOPENED, "passthrough": {"base_url": "https://127.0.0.1:1"}}))
    early = {*SDKS, "aiohttp", "httpx", "numpy", "psycopg", "qdrant_client", "sqlalchemy"} & {*ran.stdout.split()}
    assert (ran.returncode, early) == (0, set()), ran.stderr
