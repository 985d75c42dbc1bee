"""MemorySync's calls share one bounded pool, without threads, and end when their client does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from openproto_adapters.memorysync import MemorySync, connection
from openproto_adapters.memorysync.connection import Connection, Options
from openproto_conformance.emulators import Drip, HtmlWith200, Status
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import (
    AsyncMemory,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    UnauthorizedError,
)


@pytest.mark.promise(19)
async def test_clients_for_many_users_share_connections(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MOST_CLIENTS", 3)
    shared = Connection(Options(emulator.api_key, emulator.url, None, 5.0, 4))
    for n in range(10):
        await shared.call(f"user-{n}", lambda client: client.query("tea"))
    assert [end_user for end_user, _ in shared._clients.items()] == ["user-7", "user-8", "user-9"]
    assert emulator.counters.opened == 1
    await shared.close()


@pytest.mark.promise(3)
async def test_no_thread_is_left_once_a_client_is_open(emulator: Emulator) -> None:
    before = set(threading.enumerate())
    async with AsyncMemory(MemorySync(**emulator.provider_options())) as memory:
        await memory.add("tea", user_id="ann")
        for _ in range(100):
            if not set(threading.enumerate()) - before:
                break
            await asyncio.sleep(0.01)
        assert set(threading.enumerate()) - before == set()


async def test_closing_ends_a_request_whose_connection_never_comes_about() -> None:
    accepted, left = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        while await reader.read(1024):
            pass
        writer.close()
        left.set()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    shared = Connection(Options("key", f"https://127.0.0.1:{port}", None, 30.0, 4))
    request = asyncio.ensure_future(shared.fetch("/org/projects"))
    await accepted.wait()
    await shared.close()
    for call in (request, shared.fetch("/org/projects")):
        with pytest.raises(ProviderUnavailableError, match="closed"):
            await asyncio.wait_for(call, 5.0)
    await asyncio.wait_for(left.wait(), 5.0)
    server.close()


@pytest.mark.promise(16)
async def test_the_timeout_bounds_an_answer_that_comes_byte_by_byte(emulator: Emulator) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), timeout=0.3), retries=0) as memory:
        emulator.faults.next(Drip(0.05), path="/memory/query")
        with pytest.raises(ProviderTimeoutError):
            await memory.search("tea", "ann")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Status(200, {"projects": []}), ProviderError),
        (Status(200, [{"id": "proj_1"}]), ProviderError),
        (HtmlWith200(), ProviderError),
        (Status(503), ProviderUnavailableError),
        (Status(403), UnauthorizedError),  # which alone says nothing: the key may be good for memories only
    ],
)
async def test_opening_checks_the_tenant_and_the_key(
    emulator: Emulator, answer: Any, expected: type[OpenProtoError]
) -> None:
    options: dict[str, Any] = emulator.provider_options() | (
        {"api_key": "wrong"} if expected is UnauthorizedError else {}
    )
    with emulator.faults.always(answer, path="/org/projects"), pytest.raises(expected) as caught:
        await AsyncMemory(MemorySync(**options)).__aenter__()
    assert type(caught.value) is expected
