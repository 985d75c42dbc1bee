"""Reads on their way to the audit log: soon, in batches, in order, and never lost to a store that is busy."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from fake_provider import NOON
from waiting import cancelled, until

from openproto import ProviderUnavailableError
from openproto.stores import audit_buffer
from openproto.stores.audit_buffer import AuditBuffer, AuditRow

ROWS = [AuditRow("ada", NOON, None, "get", f"m{n}", None, f"r{n}") for n in range(5)]


class Store:
    def __init__(self) -> None:
        self.rows: list[AuditRow] = []
        self.refusals: list[BaseException] = []
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()

    async def __call__(self, rows: Sequence[AuditRow]) -> None:
        self.asked.set()
        await self.go.wait()
        if self.refusals:
            raise self.refusals.pop(0)
        self.rows += rows


@pytest.mark.parametrize("refusals", [[], [ProviderUnavailableError("locked")] * 2, [KeyError("bug")]])
async def test_entries_are_written_after_refusals(
    refusals: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audit_buffer.FLUSH_EVERY < 1  # a read is recorded within a second
    monkeypatch.setattr(audit_buffer, "FLUSH_EVERY", 0.01)
    store = Store()
    store.refusals = [*refusals]
    buffer = AuditBuffer(store)
    buffer.record(ROWS[0])
    await until(lambda: store.asked.is_set() and not store.refusals)
    buffer.record(ROWS[1])
    await until(lambda: store.rows == ROWS[:2])
    await buffer.close()


@pytest.mark.parametrize("how", ["done", "refused", "cancelled"])
async def test_entries_that_come_during_a_write_follow_however_it_ends(how: str) -> None:
    store = Store()
    store.go.clear()
    store.refusals = [ProviderUnavailableError("locked")] * (how == "refused")
    buffer = AuditBuffer(store)
    buffer.record(ROWS[0])
    flushing = asyncio.create_task(buffer.flush())
    await store.asked.wait()
    buffer.record(ROWS[1])
    if how == "cancelled":
        assert await cancelled(flushing)
    store.go.set()
    (outcome,) = await asyncio.gather(flushing, return_exceptions=True)
    assert (outcome is None) == (how == "done")
    await buffer.close()
    assert store.rows == ROWS[:2]


async def test_a_busy_store_loses_the_oldest(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(audit_buffer, "MOST_WAITING", 2)
    store = Store()
    buffer = AuditBuffer(store)
    for row in ROWS:
        buffer.record(row)
    await buffer.close()
    assert store.rows == ROWS[3:]
    assert [record.message.partition("entries")[2] for record in caplog.records] == [
        "; 1 of the oldest were dropped",
        " were lost at closing: they came faster than the store took them",
    ]
    assert "2 read entries were lost" in caplog.text


async def test_many_entries_are_written_at_once_unless_they_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_buffer, "FLUSH_EVERY", 60.0)
    monkeypatch.setattr(audit_buffer, "ENOUGH", 2)
    store = Store()
    store.refusals = [ProviderUnavailableError("locked")]
    buffer = AuditBuffer(store)
    for row in ROWS[:2]:
        buffer.record(row)
    await until(lambda: not store.refusals)
    for _ in range(3):
        await asyncio.sleep(0)
        buffer.record(ROWS[2])
    assert not store.rows
    await buffer.flush()
    written = len(store.rows)
    for row in ROWS[3:]:
        buffer.record(row)
    await until(lambda: len(store.rows) > written)
    assert store.rows[-2:] == ROWS[3:]
    await buffer.close()


async def test_flushing_ends_though_entries_keep_coming() -> None:
    store = Store()

    async def busy(entries: Sequence[AuditRow]) -> None:
        await asyncio.sleep(0)
        await store(entries)
        buffer.record(ROWS[len(store.rows)])  # another reader, as often as the store can write

    buffer = AuditBuffer(busy)
    buffer.record(ROWS[0])
    async with asyncio.timeout(5):
        await buffer.flush()
    assert store.rows == ROWS[:1]
    await buffer.close()


async def test_a_flush_that_comes_just_as_a_writing_ends_gives_way_to_the_loop() -> None:
    store, written = Store(), asyncio.Event()

    async def write(rows: Sequence[AuditRow]) -> None:
        await store(rows)
        written.set()

    async def record_more() -> None:
        await written.wait()
        buffer.record(ROWS[1])
        await buffer.flush()

    buffer = AuditBuffer(write)
    buffer.record(ROWS[0])
    more = asyncio.create_task(record_more())
    await asyncio.sleep(0)
    await buffer.flush()
    await more
    assert store.rows == ROWS[:2]
