"""What a client reports of its calls: events for observers, and running figures."""

from __future__ import annotations

import asyncio
import logging

import pytest
from fake_provider import FakeProvider, hang
from waiting import until

from openproto import AsyncMemory, Memory, NotFoundError, ProviderUnavailableError, RateLimitedError
from openproto.instrumentation import CallEvent, log_calls


@pytest.mark.promise(113)
async def test_an_observer_gets_an_event_for_every_call_and_harms_none(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: CallEvent) -> None:
        raise RuntimeError("the dashboard is down")

    events: list[CallEvent] = []
    provider = FakeProvider(acts=[None, NotFoundError("gone")])
    async with AsyncMemory(provider, app="notes", observers=[broken, events.append]) as m:
        await m.add("a secret", user_id="ada", scope="work")
        with pytest.raises(NotFoundError) as raised:
            await m.get("m1")
    added, got = events
    assert (added.verb, added.provider, added.outcome, added.app, added.scope) == ("add", "fake", "ok", "notes", "work")
    assert (got.verb, got.outcome, got.request_id) == ("get", "not_found", raised.value.request_id)
    assert 0 <= added.seconds < 5
    assert "the dashboard is down" in caplog.text
    assert "secret" not in repr(events) + caplog.text


@pytest.mark.promise(74, 117)
async def test_stats_count_calls_retries_errors_cancellations_and_what_is_in_flight() -> None:
    events: list[CallEvent] = []
    passing = [ProviderUnavailableError("down"), RateLimitedError("slow down", retry_after=0.01), None]
    provider = FakeProvider(acts=[None, *passing, NotFoundError("gone"), ValueError("a bug"), hang])
    async with AsyncMemory(provider, observers=[events.append]) as memory:
        assert memory.stats().calls == 0
        await memory.search("tea", "ada")
        await memory.get("m1")
        with pytest.raises(NotFoundError):
            await memory.get("m1")
        with pytest.raises(ValueError, match="a bug"):
            await memory.get("m1")
        hanging = asyncio.create_task(memory.list("ada"))
        await until(lambda: provider.calls[-1] == "list")
        assert memory.stats().in_flight == 1
        hanging.cancel()
        await asyncio.wait([hanging])
        stats = memory.stats()
    assert (stats.calls, stats.errors, stats.cancelled, stats.in_flight, stats.retries) == (5, 2, 1, 0, 2)
    assert [event.retries for event in events] == [0, 2, 0, 0, 0]
    got = stats.verbs["get"]
    assert (stats.verbs["search"].calls, got.errors, got.retries) == (1, 2, 2)
    assert 0 <= got.p50 <= got.p95 <= got.longest


@pytest.mark.promise(121)
def test_the_logging_observer_logs_verb_provider_outcome_and_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "openproto.calls")
    with Memory(FakeProvider(acts=[None, NotFoundError("gone")]), observers=[log_calls()]) as memory:
        memory.add("a secret", user_id="ada")
        with pytest.raises(NotFoundError) as raised:
            memory.get("m1")
    fine, failed = caplog.records
    assert (fine.levelno, failed.levelno) == (logging.INFO, logging.WARNING)
    assert fine.getMessage().startswith("add on fake: ok in ")
    assert f"(request {raised.value.request_id})" in failed.getMessage()
    assert "secret" not in caplog.text
