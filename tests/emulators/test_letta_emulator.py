"""The Letta emulator, through the vendor's own SDK: what a self-hosted server of 0.16.8 was seen to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import letta_client as sdk
import pytest
from openproto_conformance.emulators import CloseConnection, Emulator, Status
from openproto_conformance.emulators.letta import Letta

Documented = Callable[[Emulator], None]
MISSING = "123e4567-e89b-42d3-8456-426614174000"


@pytest.fixture
def emulator() -> Iterator[Letta]:
    with Letta() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def client(emulator: Letta) -> Iterator[Any]:
    with connect(emulator) as made:
        yield made


@contextmanager
def connect(emulator: Letta, **options: Any) -> Iterator[Any]:
    given = {"api_key": emulator.api_key, "max_retries": 0, **options}
    with httpx.Client(trust_env=False, timeout=10.0) as http:
        yield sdk.Letta(base_url=emulator.url, http_client=http, **given)


def texts(found: Any) -> list[str]:
    return [hit.passage.text for hit in found]


def test_names_of_archives_are_not_unique_and_the_oldest_is_found(client: Any) -> None:
    first, second = (client.archives.create(name="ann", description="d") for _ in range(2))
    client.archives.create(name="bob")
    assert first.id != second.id
    assert [one.id for one in client.archives.list(name="ann", order="asc", limit=1)][:1] == [first.id]
    assert [one.name for one in client.archives.list(limit=2)] == ["bob", "ann", "ann"]  # the SDK turns the page
    assert client.archives.list(order="asc", after=first.id, before=second.id).items == []
    with pytest.raises(sdk.NotFoundError):
        client.archives.list(after=f"archive-{MISSING}")
    assert client.archives.update(second.id, name="eve").name == "eve"
    assert client.archives.retrieve(second.id).description == "d"


def test_a_passage_comes_back_as_it_was_written(client: Any) -> None:
    archive = client.archives.create(name="ann")
    assert archive.embedding_config.handle == "openai/text-embedding-3-small"
    metadata = {"nested": {"list": [1, None, "x"]}}
    made = client.archives.passages.create(
        archive.id, text="tea", metadata=metadata, tags=["b", "a", "b"], created_at="2024-01-02T03:04:05.000006+00:00"
    )
    (hit,) = client.passages.search(archive_id=archive.id)
    assert (hit.passage.id, hit.passage.text, hit.passage.metadata) == (made.id, "tea", metadata)
    assert sorted(hit.passage.tags) == ["a", "b"]
    assert hit.passage.created_at.isoformat() == "2024-01-02T03:04:05.000006+00:00"
    assert client.archives.passages.create(archive.id, text="", created_at="2024-01-01T00:00:00").text == ""
    with pytest.raises(sdk.BadRequestError):
        client.archives.passages.create(archive.id, text="tea", created_at="yesterday")


def test_the_score_is_always_zero_and_the_order_is_by_nearness(client: Any) -> None:
    archive = client.archives.create(name="ann")
    for text in ("a red car", "the river at night", "green tea in the morning"):
        client.archives.passages.create(archive.id, text=text)
    found = client.passages.search(archive_id=archive.id, query="green tea")
    assert texts(found)[0] == "green tea in the morning"
    assert [hit.score for hit in found] == [0.0] * 3


def test_tags_are_looked_at_after_the_limit(client: Any) -> None:
    archive = client.archives.create(name="ann")
    client.archives.passages.create(archive.id, text="green tea")
    client.archives.passages.create(archive.id, text="a red car", tags=["x", "y"])
    search = client.passages.search
    assert search(archive_id=archive.id, query="green tea", tags=["x"], limit=1) == []
    assert texts(search(archive_id=archive.id, query="green tea", tags=["x", "z"], limit=2)) == ["a red car"]
    assert search(archive_id=archive.id, query="green tea", tags=["x", "z"], tag_match_mode="all") == []
    assert texts(search(archive_id=archive.id, tags=["y", "x"], tag_match_mode="all")) == ["a red car"]


def test_dates_are_looked_at_before_the_limit_and_include_both_ends(client: Any) -> None:
    archive = client.archives.create(name="ann")
    moments = [f"2024-01-0{day}T00:00:00+00:00" for day in (3, 1, 2)]
    for moment in moments:
        client.archives.passages.create(archive.id, text=moment[:10], created_at=moment)
    search = client.passages.search
    assert texts(search(archive_id=archive.id)) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert texts(search(archive_id=archive.id, start_date=moments[2], limit=1)) == ["2024-01-02"]
    assert texts(search(archive_id=archive.id, start_date=moments[2], end_date=moments[2])) == ["2024-01-02"]
    assert texts(search(archive_id=archive.id, query="x", end_date=moments[1])) == ["2024-01-01"]


def test_a_batch_is_created_at_one_moment_unless_it_says_otherwise(client: Any) -> None:
    archive = client.archives.create(name="ann")
    made = client.archives.passages.create_many(
        archive.id,
        passages=[{"text": "a"}, {"text": "b"}, {"text": "c", "created_at": "2024-01-01T00:00:00+00:00"}],
    )
    assert [passage.text for passage in made] == ["a", "b", "c"]
    assert made[0].created_at == made[1].created_at != made[2].created_at
    assert client.archives.passages.create_many(f"archive-{MISSING}", passages=[]) == []


def test_without_an_embedding_model_a_search_finds_substrings_and_a_batch_fails() -> None:
    with Letta(default_embedding=None) as emulator, connect(emulator) as client:
        archive = client.archives.create(name="ann")
        assert archive.embedding_config is None
        client.archives.passages.create(archive.id, text="Green Tea")
        assert texts(client.passages.search(archive_id=archive.id, query="green t")) == ["Green Tea"]
        assert client.passages.search(archive_id=archive.id, query="tea green") == []
        with pytest.raises(sdk.InternalServerError):
            client.archives.passages.create_many(archive.id, passages=[{"text": "a"}])
        assert emulator.violations == []


def test_a_model_that_the_server_does_not_have_is_a_bad_request(client: Any) -> None:
    with pytest.raises(sdk.BadRequestError, match="not found"):
        client.archives.create(name="ann", embedding="no/such")
    assert client.archives.create(name="ann", embedding="openai/text-embedding-ada-002").embedding_config is not None


def test_what_is_gone_is_404_and_what_is_elsewhere_400(client: Any) -> None:
    archive, other = (client.archives.create(name=name) for name in ("ann", "bob"))
    passage = client.archives.passages.create(archive.id, text="tea")
    with pytest.raises(sdk.BadRequestError, match="does not belong"):
        client.archives.passages.delete(passage.id, archive_id=other.id)
    client.archives.passages.delete(passage.id, archive_id=archive.id)
    with pytest.raises(sdk.NotFoundError):
        client.archives.passages.delete(passage.id, archive_id=archive.id)
    client.archives.passages.create(archive.id, text="tea")
    client.archives.delete(archive.id)
    assert client.passages.search(archive_id=archive.id) == []
    for attempt in (
        lambda: client.archives.delete(archive.id),
        lambda: client.archives.retrieve(archive.id),
        lambda: client.archives.passages.create(archive.id, text="tea"),
        lambda: client.passages.search(archive_id=archive.id, query="tea"),
        lambda: client.passages.search(agent_id=f"agent-{MISSING}"),
    ):
        with pytest.raises(sdk.NotFoundError):
            attempt()


def test_a_passage_cannot_be_changed(client: Any, emulator: Letta) -> None:
    archive = client.archives.create(name="ann")
    passage = client.archives.passages.create(archive.id, text="tea")
    with pytest.raises(sdk.APIStatusError) as caught:
        client.patch(f"/v1/archives/{archive.id}/passages/{passage.id}", cast_to=object, body={"text": "coffee"})
    assert caught.value.status_code == 405


def test_a_search_of_everything_is_a_500_and_breaks_the_connection(client: Any, emulator: Letta) -> None:
    with pytest.raises(sdk.InternalServerError) as caught:
        client.passages.search(query="tea")
    assert caught.value.body == {"detail": "An unknown error occurred"}
    with pytest.raises(sdk.APIConnectionError):
        client.health()
    assert client.health().version == "0.16.8"


def test_a_fault_of_status_500_breaks_the_connection_too_and_others_do_not(client: Any, emulator: Letta) -> None:
    for status, breaks in ((500, True), (503, False)):
        emulator.faults.next(Status(status))
        with pytest.raises(sdk.InternalServerError):
            client.health()
        if breaks:
            with pytest.raises(sdk.APIConnectionError):
                client.health()
        else:
            assert client.health().status == "ok"


def test_credentials(emulator: Letta) -> None:
    with connect(emulator, api_key="wrong") as client:
        with pytest.raises(sdk.AuthenticationError) as caught:
            client.archives.list()
        assert (caught.value.status_code, caught.value.body) == (401, {"detail": "Unauthorized"})
        assert client.health().status == "ok"
    with connect(emulator, api_key=None) as client, pytest.raises(sdk.AuthenticationError):
        client.archives.create(name="ann")


def test_a_retried_write_is_stored_again(emulator: Letta) -> None:
    with connect(emulator, max_retries=2) as client:
        archive = client.archives.create(name="ann")
        emulator.faults.next(CloseConnection(applied=True), CloseConnection(applied=True))
        client.archives.passages.create(archive.id, text="tea")
        assert texts(client.passages.search(archive_id=archive.id)) == ["tea"] * 3


def test_the_document_decides_what_is_unprocessable(emulator: Letta, client: Any, documented: Documented) -> None:
    documented(emulator)
    archive = client.archives.create(name="ann")
    attempts: list[Callable[[], Any]] = [
        lambda: client.archives.retrieve("nope"),
        lambda: client.archives.passages.delete("nope", archive_id=archive.id),
        lambda: client.archives.passages.create(archive.id, text=5),
        lambda: client.archives.passages.create(archive.id, text="tea", tags="x"),
        lambda: client.passages.search(archive_id=archive.id, limit=101),
        lambda: client.passages.search(archive_id=archive.id, limit=0),
        lambda: client.archives.list(order="sideways"),
    ]
    for attempt in attempts:
        with pytest.raises(sdk.UnprocessableEntityError) as caught:
            attempt()
        body: Any = caught.value.body
        assert isinstance(body["detail"], str)
    with pytest.raises(sdk.UnprocessableEntityError) as caught:
        client.archives.retrieve("nope")
    body = caught.value.body
    assert body["examples"] == [f"archive-{MISSING}"]


def test_an_answer_that_the_document_forbids_is_caught(documented: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    from openproto_conformance.emulators.letta import store

    monkeypatch.setattr(store, "_moment", lambda moment: 5)
    with Letta() as emulator, connect(emulator) as client:
        documented(emulator)
        with pytest.raises(sdk.InternalServerError, match="599"):
            client.archives.create(name="ann")
    assert len(emulator.violations) == 1
    assert emulator.violations[0].startswith("POST /v1/archives/: 200: ")
