"""The Memsy emulator, through the vendor's own SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from memsy import EventPayload, MemsyClient
from memsy.exceptions import AuthenticationError, MemsyAPIError
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.memsy import Memsy

CERTIFICATE = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Memsy]:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))  # one certificate to read, for the SDK to start sooner
    with Memsy(lag=1.0) as running:
        yield running
        assert running.violations == []


@pytest.fixture
def client(emulator: Memsy) -> Iterator[MemsyClient]:
    with MemsyClient(f"{emulator.url}/v1", emulator.api_key, max_retries=0) as made:
        yield made


class Clock:
    seconds = 0.0


@pytest.fixture
def clock(emulator: Memsy, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The emulator's clock, which stands still until it is set."""
    made = Clock()
    monkeypatch.setattr(emulator, "now", lambda: 1_700_000_000.0 + made.seconds)
    return made


def said(text: str, actor: str = "ann", session: str = "s", **fields: str) -> EventPayload:
    return EventPayload(actor, session, "user_message", text, **fields)


def test_health_is_for_anybody_and_the_rest_needs_the_key(emulator: Memsy) -> None:
    with MemsyClient(f"{emulator.url}/v1", "wrong", max_retries=0) as stranger:
        assert stranger.health().status == "ok"
        with pytest.raises(AuthenticationError):
            stranger.search("tea", actor_id="ann")


def test_an_event_is_pending_until_it_is_completed_and_becomes_a_memory_then(
    clock: Clock, emulator: Memsy, client: MemsyClient
) -> None:
    emulator.failing.add("bad")
    tea, bad = client.ingest([said("Ann likes tea", metadata='{"plan": "pro"}'), said("bad")]).event_ids
    early = client.status([tea, bad, "unknown"])
    assert (early.pending_ids, early.completed_ids, early.failed_ids, early.total) == ([tea, bad], [], [], 3)
    assert client.search("tea", actor_id="ann").results == []
    assert client.memories.list(actor_id="ann").total == 0
    clock.seconds = 1.0
    late = client.status([tea, bad])
    assert (late.pending_ids, late.completed_ids, late.failed_ids) == ([], [tea], [bad])
    (hit,) = client.search("tea", actor_id="ann", include_source_events=True).results
    assert (hit.content, hit.session_id, hit.source_event_ids) == ("Ann likes tea", "s", [tea])
    assert hit.source_metadata == [{"event_id": tea, "metadata": {"plan": "pro"}}]
    assert [event.content for event in hit.source_events] == ["Ann likes tea"]
    listed = client.memories.get(hit.id)
    assert (listed.text, listed.scope.actor_id, listed.source_event_ids) == ("Ann likes tea", "ann", [tea])
    assert client.memories.stats().total_memories == 1
    assert client.actors.get("ann").memory_count == client.actors.list().total == 1


def test_the_same_event_within_a_minute_is_the_one_before(clock: Clock, client: MemsyClient) -> None:
    first = client.ingest([said("tea")]).event_ids
    assert client.ingest([said("tea", metadata="{}")]).event_ids == first
    assert client.ingest([said("tea", session="other")]).event_ids != first
    clock.seconds = 61.0
    assert client.ingest([said("tea")]).event_ids != first


def test_a_search_is_of_one_actor_and_session_or_of_everybody(clock: Clock, client: MemsyClient) -> None:
    client.ingest([said("tea of ann"), said("tea of bob", actor="bob"), said("more tea", session="later")])
    clock.seconds = 1.0

    def found(**filters: str) -> set[str]:
        return {hit.content for hit in client.search("tea", **filters).results}  # type: ignore[arg-type]  # all are ids

    assert found() == {"tea of ann", "tea of bob", "more tea"}
    assert found(actor_id="ann") == {"tea of ann", "more tea"}
    assert found(actor_id="ann", session_id="later") == {"more tea"}
    assert found(actor_id="ann", exclude_session_id="later") == {"tea of ann"}


def test_scores_depend_on_the_plan_and_every_search_strengthens_what_it_finds(
    clock: Clock, emulator: Memsy, client: MemsyClient
) -> None:
    client.ingest([said("Ann likes tea")])
    clock.seconds = 1.0
    (pro,) = client.search("Ann likes tea").results
    emulator.plan = "free"
    response = client.search("Ann likes tea")
    (free,) = response.results
    assert (pro.score, free.score) == (1.0, pytest.approx(0.1))
    assert (pro.strength, free.strength) == (pytest.approx(1.1), pytest.approx(1.2))
    assert response.usage is not None
    assert (response.usage.plan, response.usage.search_queries, response.usage.events_ingested) == ("free", 2, 1)
    assert client.search("Ann likes tea", threshold=0.5).results == []


@pytest.mark.parametrize(
    "event",
    [
        said(""),
        said("c" * 8000),
        said("tea", actor=""),
        said("tea", session="s" * 257),
        said("tea", metadata="m" * 4097),
        said("tea", metadata={"not": "a string"}),  # type: ignore[arg-type]  # which the SDK sends without complaint
        EventPayload("ann", "s", "a new kind", "tea"),
    ],
    ids=lambda event: repr(event)[:60],
)
def test_an_event_that_is_wrong_is_refused_and_with_it_the_batch(
    emulator: Memsy, client: MemsyClient, event: EventPayload
) -> None:
    with pytest.raises(MemsyAPIError) as caught:
        client.ingest([said("fine"), event])
    assert caught.value.status_code == 422
    assert emulator.events == {}


def test_an_id_that_was_stored_may_not_be_searchable(client: MemsyClient) -> None:
    client.ingest([said("tea", actor="ann smith")])
    for options in (
        {"actor_id": "ann smith"},
        {"session_id": "a", "exclude_session_id": "b"},
        {"limit": 101},
        {"limit": 0},
    ):
        with pytest.raises(MemsyAPIError) as caught:
            client.search("tea", **options)  # type: ignore[arg-type]  # of several kinds
        assert caught.value.status_code == 422


def test_a_listing_has_pages_and_ids_are_uuids(clock: Clock, client: MemsyClient) -> None:
    client.ingest([said(f"note {n}", ts=f"2026-01-0{n + 1}T00:00:00Z") for n in range(5)])
    clock.seconds = 1.0
    page = client.memories.list(actor_id="ann", limit=2, offset=2)
    assert ([one.text for one in page.items], page.total) == (["note 2", "note 1"], 5)
    assert [one.text for one in client.memories.list(search="NOTE 4", sort="observed_at_asc").items] == ["note 4"]
    assert client.memories.list(status="archived").items == []
    for id, status in (("not-a-uuid", 422), ("00000000-0000-4000-8000-000000000000", 404)):
        with pytest.raises(MemsyAPIError) as caught:
            client.memories.get(id)
        assert caught.value.status_code == status


def test_the_sdk_loses_what_a_429_says(emulator: Memsy, client: MemsyClient) -> None:
    body = {"detail": {"error": "usage_limit_exceeded", "message": "quota"}}
    emulator.faults.next(Status(429, body=body, retry_after=7))
    with pytest.raises(MemsyAPIError) as caught:
        client.search("tea", actor_id="ann")
    assert (type(caught.value), caught.value.status_code, caught.value.detail) == (MemsyAPIError, 429, "")
