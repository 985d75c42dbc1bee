"""Reads on their way to the audit log: soon, in batches, in order, and never lost to a store that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from fake_provider import NOON
from waiting import until

from openproto import ProviderUnavailableError
from openproto.provider import Call, current_call
from openproto.stores import audit_buffer
from openproto.stores.audit_buffer import AuditBuffer, AuditRow, audit_row


def row(n: int) -> AuditRow:
    return AuditRow("ada", NOON, None, "get", f"m{n}", None, f"r{n}")


class Store:
    def __init__(self) -> None:
        self.batches: list[list[AuditRow]] = []
        self.refusals: list[BaseException] = []
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, rows: Sequence[AuditRow]) -> None:
        self.asked.set()
        await self.go.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.batches.append(list(rows))

    @property
    def rows(self) -> list[AuditRow]:
        return [row for batch in self.batches for row in batch]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert audit_buffer.FLUSH_EVERY < 1  # a read is recorded within a second
    monkeypatch.setattr(audit_buffer, "FLUSH_EVERY", 0.01)


async def rows(store: Store, count: int) -> None:
    await until(lambda: len(store.rows) >= count)


async def test_entries_are_written_together_in_the_background(quick: None) -> None:
    store = Store()
    buffer = AuditBuffer(store)
    for n in range(3):
        buffer.record(row(n))
    assert store.batches == []
    await rows(store, 3)
    assert store.batches == [[row(0), row(1), row(2)]]
    await buffer.close()


@pytest.mark.parametrize("refusals", [[ProviderUnavailableError("locked")] * 2, [KeyError("bug")]])
async def test_a_store_that_refuses_or_has_a_bug_gets_the_entries_again(
    refusals: list[BaseException], quick: None
) -> None:
    store = Store()
    store.refusals = refusals
    buffer = AuditBuffer(store)
    buffer.record(row(0))
    await until(lambda: not store.refusals)
    buffer.record(row(1))
    await rows(store, 2)
    assert store.rows == [row(0), row(1)]
    await buffer.close()


@pytest.mark.parametrize("refused", [False, True])
async def test_entries_that_come_during_a_write_are_written_after_its_own(refused: bool, quick: None) -> None:
    store = Store()
    store.go.clear()
    store.refusals = [ProviderUnavailableError("locked")] * refused
    buffer = AuditBuffer(store)
    buffer.record(row(0))
    flushing = asyncio.create_task(buffer.flush())
    await store.asked.wait()
    buffer.record(row(1))
    store.go.set()
    (outcome,) = await asyncio.gather(flushing, return_exceptions=True)
    assert isinstance(outcome, ProviderUnavailableError) == refused
    await rows(store, 2)
    assert store.rows == [row(0), row(1)]
    await buffer.close()


async def test_a_flush_that_is_cancelled_loses_nothing() -> None:
    store = Store()
    store.go.clear()
    buffer = AuditBuffer(store)
    buffer.record(row(0))
    flushing = asyncio.create_task(buffer.flush())
    await store.asked.wait()
    buffer.record(row(1))
    flushing.cancel()
    await asyncio.wait([flushing])
    store.go.set()
    await buffer.close()
    assert store.rows == [row(0), row(1)]


async def test_a_store_that_never_answers_costs_bounded_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_buffer, "MOST_WAITING", 3)
    store = Store()
    buffer = AuditBuffer(store)
    for n in range(5):
        buffer.record(row(n))
    await buffer.close()
    assert store.rows == [row(2), row(3), row(4)]
    assert "1 of the oldest were dropped" in caplog.text


def test_an_entry_knows_the_call_in_progress_and_the_app_of_the_memory_itself_comes_first() -> None:
    token = current_call.set(Call("search", "r1", "notes"))
    entry, own = audit_row("ada", scope="a"), audit_row("ada", app="mail")
    current_call.reset(token)
    assert (entry.user_id, entry.action, entry.request_id, entry.scope) == ("ada", "search", "r1", "a")
    assert entry.timestamp.utcoffset() == timedelta(0)
    assert (entry.app, own.app) == ("notes", "mail")


async def test_flushing_ends_though_entries_keep_coming() -> None:
    store = Store()

    async def busy(entries: Sequence[AuditRow]) -> None:
        await asyncio.sleep(0)
        await store(entries)
        buffer.record(row(len(store.rows)))  # another reader, as often as the store can write

    buffer = AuditBuffer(busy)
    buffer.record(row(0))
    async with asyncio.timeout(5):
        await buffer.flush()
    assert store.rows == [row(0)]
    await buffer.close()


async def test_a_flush_that_comes_just_as_a_writing_ends_gives_way_to_the_loop() -> None:
    store, written = Store(), asyncio.Event()

    async def write(rows: Sequence[AuditRow]) -> None:
        await store(rows)
        written.set()

    buffer = AuditBuffer(write)

    async def record_more() -> None:
        await written.wait()
        buffer.record(row(2))
        await buffer.flush()

    buffer.record(row(1))
    more = asyncio.create_task(record_more())
    await asyncio.sleep(0)
    await buffer.flush()
    await more
    assert store.rows == [row(1), row(2)]
