"""Calls that are cancelled, and many calls at once: over one bounded pool, without threads, beside a free loop."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest
from openproto_adapters.memorysync import MemorySync, connection
from openproto_adapters.memorysync.connection import Connection, Options
from openproto_conformance.emulators import Hang, Latency
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import AsyncMemory
from openproto.errors import ProviderUnavailableError


@pytest.mark.promise(15)
async def test_a_cancel_scope_and_a_timeout_cut_a_call_as_a_task_does(memory: AsyncMemory, emulator: Emulator) -> None:
    with emulator.faults.always(Hang()):
        with anyio.move_on_after(0.1) as scope:
            await memory.search("tea", "ann")
        assert scope.cancelled_caught
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(memory.search("tea", "ann"), 0.1)
        await asyncio.to_thread(emulator.counters.wait_for, lambda seen: seen.disconnects == 2)
    assert await memory.search("tea", "ann") == []


@pytest.mark.promise(4)
@pytest.mark.promise(7)
@pytest.mark.promise(25)
async def test_250_calls_at_once_all_succeed_in_order_over_a_bounded_number_of_connections(emulator: Emulator) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), max_connections=16), retries=0) as memory:
        with emulator.faults.always(Latency(0.02), path="/memory/bulk-add"):
            records = await asyncio.gather(*(memory.add(f"note {n}", user_id=f"user {n}") for n in range(250)))
    assert [record.content for record in records] == [f"note {n}" for n in range(250)]
    assert emulator.counters.max_in_flight <= 16
    assert emulator.counters.opened <= 16


@pytest.mark.promise(6)
async def test_no_more_requests_than_connections_are_under_way_together(emulator: Emulator) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), max_connections=8)) as memory:
        with emulator.faults.always(Latency(0.1), path="/memory/query"):
            await asyncio.gather(*(memory.search("tea", f"user {n}") for n in range(40)))
    assert emulator.counters.max_in_flight == 8


@pytest.mark.promise(19)
async def test_clients_for_many_users_are_few_and_share_their_connections(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await asyncio.wait_for(request, 5.0)
    await asyncio.wait_for(left.wait(), 5.0)
    with pytest.raises(ProviderUnavailableError, match="closed"):
        await shared.fetch("/org/projects")
    server.close()
