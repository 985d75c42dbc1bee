"""The emulated mem0 platform, with mem0's own client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openproto_adapters.mem0.quiet_import import import_mem0
from openproto_conformance.emulators import Emulator
from openproto_conformance.emulators.mem0 import Mem0Platform
from openproto_conformance.emulators.messages import Answer, Request

Documented = Callable[[Emulator], None]

USER = {"user_id": "ann"}


@pytest.fixture
def platform() -> Iterator[Mem0Platform]:
    with Mem0Platform() as running:
        yield running


@pytest.fixture
def client(platform: Mem0Platform) -> Iterator[Any]:
    made = import_mem0().MemoryClient(api_key=platform.api_key, host=platform.url)
    yield made
    made.client.close()


def add(client: Any, text: str, **options: Any) -> str:
    (added,) = client.add(text, infer=False, **{**USER, **options})["results"]
    return str(added["id"])


def event(client: Any, answer: Any) -> Any:
    return client.client.get(f"/v1/event/{answer['event_id']}/").json()


def test_memories_in_a_listing_are_checked_against_the_document(
    platform: Mem0Platform, client: Any, documented: Documented
) -> None:
    documented(platform)
    platform.memories[add(client, "tea")].expiration_date = 7  # type: ignore[assignment]  # the fault
    with pytest.raises(Exception, match="violation"):
        client.get_all(filters=USER, show_expired=True)
    assert platform.violations


def test_an_emptied_platform_has_nothing_and_takes_the_same_text_anew(platform: Mem0Platform, client: Any) -> None:
    add(client, "tea")
    platform.clear()
    assert client.get_all(filters=USER)["results"] == []
    id = add(client, "tea")
    assert [one["id"] for one in client.get_all(filters=USER)["results"]] == [id]


def until_done(client: Any, answer: Any) -> Any:
    deadline = time.monotonic() + 5
    while (told := event(client, answer))["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return told


def test_what_is_added_as_it_is_is_there_at_once_and_found_later(platform: Mem0Platform, client: Any) -> None:
    platform.lag = 60
    id = add(client, "likes tea", metadata={"mood": "calm"}, run_id="1")
    assert client.get(id)["session_id"] == "1"
    assert [one["session_id"] for one in client.get_all(filters=USER)["results"]] == ["1"]
    assert client.search("tea", filters=USER)["results"] == []
    platform.lag = 0
    (hit,) = client.search("tea", filters=USER)["results"]
    assert (hit["id"], hit["run_id"], hit["metadata"]) == (id, "1", {"mood": "calm"})
    assert 0 < hit["score"] <= 1
    assert platform.violations == []


def test_an_exact_repeat_in_its_scope_is_dropped_and_only_the_empty_results_say_so(
    platform: Mem0Platform, client: Any
) -> None:
    id = add(client, "likes tea")
    repeated = client.add("likes tea", infer=False, **USER)
    assert (repeated["status"], repeated["results"]) == ("SUCCEEDED", [])
    assert add(client, "likes tea", run_id="1") != id
    assert add(client, "likes tea", user_id="bob") != id
    client.delete(id)
    assert add(client, "likes tea") != id
    assert platform.violations == []


def test_what_a_model_reads_is_pending_and_then_there(platform: Mem0Platform, client: Any) -> None:
    platform.lag = 0.1
    answer = client.add("likes tea", **USER)
    assert answer["status"] == "PENDING"
    assert client.get_all(filters=USER)["count"] == 0
    told = until_done(client, answer)
    assert [result["data"]["memory"] for result in told["results"]] == ["likes tea"]
    assert client.get_all(filters=USER)["count"] == 1
    platform.events_fail = True
    assert until_done(client, client.add("likes coffee", **USER))["status"] == "FAILED"
    assert platform.violations == []


def test_deleting_by_filter_is_queued_and_a_star_means_everybody(platform: Mem0Platform, client: Any) -> None:
    platform.lag = 0.1
    add(client, "likes tea")
    add(client, "likes tea", user_id="bob")
    answer = client.delete_all(user_id="*")
    assert client.get_all(filters={"user_id": "*"})["count"] == 2
    assert until_done(client, answer)["status"] == "SUCCEEDED"
    assert client.get_all(filters={"user_id": "*"})["count"] == 0
    assert platform.violations == []


def test_listings_have_pages(platform: Mem0Platform, client: Any) -> None:
    ids = [add(client, f"note {n}") for n in range(5)]
    pages = [client.get_all(filters=USER, page=page, page_size=2) for page in (1, 2, 3)]
    assert [one["id"] for page in pages for one in page["results"]] == ids[::-1]
    assert [page["count"] for page in pages] == [5, 5, 5]
    assert [bool(page["next"]) for page in pages] == [True, True, False]
    assert platform.violations == []


def test_updates_batches_and_the_history(platform: Mem0Platform, client: Any) -> None:
    id, other = add(client, "likes tea"), add(client, "likes jam")
    assert client.update(id, text="likes coffee")["memory"] == "likes coffee"
    client.batch_update([{"memory_id": other, "text": "likes honey"}])
    client.batch_delete([{"memory_id": id}, {"memory_id": other}])
    assert [entry["event"] for entry in client.history(id)] == ["ADD", "UPDATE", "DELETE"]
    assert client.get_all(filters=USER)["count"] == 0
    assert platform.violations == []


def test_expired_memories_are_hidden_but_not_from_get(platform: Mem0Platform, client: Any) -> None:
    platform.lag = 0
    id = add(client, "likes tea", expiration_date="2020-01-31")
    assert client.get_all(filters=USER)["count"] == 0
    assert client.search("tea", filters=USER)["results"] == []
    assert client.get_all(filters=USER, show_expired=True)["count"] == 1
    assert client.get(id)["expiration_date"] == "2020-01-31"
    assert platform.violations == []


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"user_id": "ann"}, 1),
        ({"AND": [{"user_id": "ann"}, {"metadata": {"mood": "calm"}}]}, 1),
        ({"user_id": "ann", "metadata": {"mood": {"ne": "calm"}}}, 0),
        ({"user_id": "ann", "metadata": {"mood": {"contains": "cal"}}}, 1),
        ({"OR": [{"user_id": "bob"}, {"user_id": {"in": ["ann"]}}]}, 1),
        ({"user_id": "*", "NOT": [{"run_id": "*"}]}, 1),
        ({"user_id": "ann", "created_at": {"gte": "2999-01-01"}}, 0),
    ],
)
def test_filters_select(platform: Mem0Platform, client: Any, filters: Any, count: int) -> None:
    add(client, "likes tea", metadata={"mood": "calm"})
    assert client.get_all(filters=filters)["count"] == count
    assert platform.violations == []


@pytest.mark.parametrize(
    ("filters", "status"),
    [
        ({}, 400),
        ({"mood": "calm", "user_id": "ann"}, 400),
        ({"user_id": "ann", "metadata": {"n": {"gt": 1}}}, 400),
        ({"user_id": "ann", "metadata": {"n": {"in": [1]}}}, 400),
        ({"user_id": {"nin": ["bob"]}}, 400),
        ({"NOT": [{"user_id": "ann"}]}, 400),
        ({"user_id": "ann", "keywords": "tea"}, 500),
    ],
)
def test_filters_that_the_platform_does_not_know_are_refused(
    platform: Mem0Platform, client: Any, filters: Any, status: int
) -> None:
    from mem0 import exceptions

    with pytest.raises(exceptions.MemoryError) as caught:
        client.search("tea", filters=filters)
    assert caught.value.error_code == f"HTTP_{status}"
    assert platform.violations == []


def test_what_is_not_there_and_who_may_not(platform: Mem0Platform, client: Any) -> None:
    from mem0.exceptions import MemoryNotFoundError, ValidationError

    with pytest.raises(MemoryNotFoundError):
        client.get("00000000-0000-4000-8000-000000000000")
    with pytest.raises(ValidationError):
        client.get("nope")
    with pytest.raises(ValidationError):
        client.add("likes tea", infer=False)
    with httpx.Client() as http, pytest.raises(ValueError, match="Unauthorized"):
        import_mem0().MemoryClient(api_key="wrong", host=platform.url, client=http)
    assert platform.violations == []


def test_an_answer_that_the_document_forbids_is_noticed(
    platform: Mem0Platform, client: Any, documented: Documented, monkeypatch: pytest.MonkeyPatch
) -> None:
    documented(platform)
    from mem0 import exceptions

    def broken(self: Mem0Platform, request: Request) -> Answer:
        return Answer(200, {"results": [{"id": 7}]})

    monkeypatch.setattr(Mem0Platform, "search", broken)
    with pytest.raises(exceptions.MemoryError):
        client.search("tea", filters=USER)
    assert len(platform.violations) == 1
