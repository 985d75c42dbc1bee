"""The Supermemory emulator, through the vendor's own SDK."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import httpx
import pytest
from openproto_conformance.emulators import CloseConnection, Emulator, HtmlWith200, Latency, Status
from openproto_conformance.emulators.supermemory import Supermemory

sdk: Any = import_module("supermemory")  # it does not declare its exceptions as exported
NS = "omp:u:ada"
Documented = Callable[[Emulator], None]


@pytest.fixture
def emulator() -> Iterator[Supermemory]:
    with Supermemory() as running:
        yield running
        assert running.violations == []


@pytest.fixture
def client(emulator: Supermemory) -> Iterator[Any]:
    with connect(emulator) as made:
        yield made


@contextmanager
def connect(emulator: Supermemory, **options: Any) -> Iterator[Any]:
    given = {"api_key": emulator.api_key, "max_retries": 0, **options}
    with httpx.Client(trust_env=False, verify=False, timeout=10.0) as http:
        yield sdk.Supermemory(base_url=emulator.url, http_client=http, **given)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0


@pytest.fixture
def clock(emulator: Supermemory, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The emulator's clock, which stands still until it is set."""
    made = Clock()
    monkeypatch.setattr(emulator, "now", lambda: 1_700_000_000.0 + made.seconds)
    return made


def settled(client: Any, id: str, namespace: str = NS) -> Any:
    """Return a document once it is processed and its memories have formed."""
    for _ in range(1000):
        document = client.documents.get(namespace, id, include=["chunks", "memories"])
        if document.system.status in ("done", "failed") and document.system.dreaming_status == "done":
            return document
        time.sleep(0.005)
    raise TimeoutError(f"{id} is never settled")


def plant(client: Any, **contents: str) -> None:
    for id, content in contents.items():
        client.add(NS, content=content, id=id, dreaming="instant")
    for id in contents:
        settled(client, id)


def texts(found: Any) -> list[str]:
    return [result.memory or result.chunk for result in found.results]


def test_a_document_goes_from_queued_to_done_and_memories_form_later(
    clock: Clock, emulator: Supermemory, client: Any
) -> None:
    emulator.lag = 1.0
    added = client.add(NS, content="Ann likes tea", id="doc-1", metadata={"stars": 3})
    assert (added.id, added.status) == ("doc-1", "queued")
    seen = []
    for clock.seconds in (0.1, 0.3, 0.5, 0.7, 0.9, 1.1, 3.9, 4.1):
        document = client.documents.get(NS, "doc-1", include=["memories"])
        found = client.search(NS, query="tea", threshold=0)
        system = document.system
        seen.append((system.status, system.dreaming_status, len(document.memories), len(found.results)))
    assert seen == [
        ("queued", "dreaming", 0, 0),
        ("extracting", "dreaming", 0, 0),
        ("chunking", "dreaming", 0, 0),
        ("embedding", "dreaming", 0, 0),
        ("indexing", "dreaming", 0, 0),
        ("done", "dreaming", 0, 1),
        ("done", "dreaming", 0, 1),
        ("done", "done", 1, 2),
    ]
    (memory,) = document.memories
    assert (memory.memory, memory.metadata, memory.version) == ("Ann likes tea", {"stars": 3}, 1)
    assert memory.id != document.id


def test_instant_dreaming_is_sooner_and_superrag_forms_no_memories(
    clock: Clock, emulator: Supermemory, client: Any
) -> None:
    emulator.lag = 1.0
    client.add(NS, content="one", id="instant", dreaming="instant")
    client.add(NS, content="two", id="dynamic")
    client.add(NS, content="three", id="superrag", task_type="superrag")
    clock.seconds = 2.0
    seen = [client.documents.get(NS, id) for id in ("instant", "dynamic", "superrag")]
    assert [document.system.dreaming_status for document in seen] == ["done", "dreaming", "done"]
    clock.seconds = 10.0
    superrag = client.documents.get(NS, "superrag", include=["chunks", "memories"])
    assert ([chunk.content for chunk in superrag.chunks], superrag.memories) == (["three"], [])


def test_a_document_may_be_missing_at_first(clock: Clock, emulator: Supermemory, client: Any) -> None:
    emulator.missing_for = 1.0
    client.add(NS, content="tea", id="doc-1")
    with pytest.raises(sdk.NotFoundError):
        client.documents.get(NS, "doc-1")
    clock.seconds = 1.0
    assert client.documents.get(NS, "doc-1").content == "tea"


def test_a_document_may_fail(emulator: Supermemory, client: Any) -> None:
    emulator.failing.add("bad")
    client.add(NS, content="tea", id="bad")
    assert settled(client, "bad").system.status == "failed"
    assert client.search(NS, query="tea", threshold=0).results == []
    assert client.add(NS, content="tea", id="bad", metadata={"a": 1}).status == "failed"


def test_adding_again_under_an_id_appends_and_a_duplicate_does_nothing(client: Any) -> None:
    plant(client, one="Ann likes tea")
    assert client.add(NS, content="Ann likes tea", id="one").status == "done"
    assert client.add(NS, content="Bob likes coffee", id="one").status == "queued"
    document = settled(client, "one")
    assert document.content == "Ann likes tea\nBob likes coffee"
    assert [memory.memory for memory in document.memories] == ["Ann likes tea", "Bob likes coffee"]
    assert client.add(NS, content="no id").id != client.add(NS, content="no id").id


def test_an_update_replaces_what_is_given_and_keeps_the_rest(client: Any) -> None:
    client.add(NS, content="old tea", id="one", metadata={"a": 1}, dreaming="instant")
    (first,) = settled(client, "one").memories
    assert client.documents.update(NS, "one", metadata={"b": True}).status == "done"
    assert client.documents.get(NS, "one").content == "old tea"
    assert client.documents.update(NS, "one", content="new coffee").status == "queued"
    assert [document.content for document in listed(client, include={"content": True})] == ["old tea"]
    document = settled(client, "one")
    assert (document.content, document.metadata) == ("new coffee", {"b": True})
    assert texts(client.search(NS, query="tea")) == []
    assert texts(client.search(NS, query="coffee", search_mode="memories")) == ["new coffee"]
    second = client.memories.get(NS, document.memories[-1].id, include=["related", "documents"])
    assert (second.version, second.is_latest) == (2, True)
    assert [parent.id for parent in second.included.related.parents] == [first.id]
    assert second.included.document.id == "one"
    earlier = client.memories.get(NS, first.id, include=["related"])
    assert (earlier.is_latest, [child.id for child in earlier.included.related.children]) == (False, [second.id])


def listed(client: Any, **options: Any) -> Any:
    return client.list(NS, "documents", **options).documents


def test_search_ranks_cuts_and_has_defaults(client: Any) -> None:
    notes = {f"n{number}": f"a note on rivers number {number}" for number in range(12)}
    plant(client, tea="green tea in the morning", cars="a red car", **notes)
    found = client.search(NS, query="green tea in the morning", search_mode="chunks", threshold=0, limit=100)
    scores = [result.similarity for result in found.results]
    assert (len(scores), scores) == (14, sorted(scores, reverse=True))
    assert (texts(found)[0], scores[0]) == ("green tea in the morning", 1.0)
    assert texts(client.search(NS, query="green tea in the morning", search_mode="chunks")) == texts(found)[:1]
    assert len(client.search(NS, query="note on rivers").results) == 10
    both = client.search(NS, query="red car", include={"documents": True, "related": True})
    assert sorted((bool(result.memory), bool(result.chunk)) for result in both.results) == [
        (False, True),
        (True, False),
    ]
    assert {result.included.document.id for result in both.results} == {"cars"}
    assert client.search("another", query="red car").results == []


@pytest.mark.parametrize(
    ("filter", "ids"),
    [
        ({"field": "scope", "operator": "eq", "value": "work"}, "a"),
        ({"field": "scope", "operator": "eq", "value": "WORK", "caseSensitive": False}, "a"),
        ({"field": "scope", "operator": "eq", "value": "WORK"}, ""),
        ({"field": "scope", "operator": "neq", "value": "work"}, "bc"),
        ({"field": "scope", "operator": "contains", "value": "o"}, "ab"),
        ({"field": "scope", "operator": "notContains", "value": "o"}, "c"),
        ({"field": "stars", "operator": "gt", "value": 1}, "b"),
        ({"field": "stars", "operator": "gte", "value": 1}, "ab"),
        ({"field": "stars", "operator": "lt", "value": 2}, "a"),
        ({"field": "stars", "operator": "lte", "value": 2}, "ab"),
        ({"field": "stars", "operator": "eq", "value": True}, ""),
        ({"field": "done", "operator": "eq", "value": True}, "b"),
        ({"field": "tags", "operator": "arrayContains", "value": "x"}, "ab"),
        ({"field": "tags", "operator": "arrayNotContains", "value": "y"}, "bc"),
        (
            {
                "operator": "and",
                "operands": [
                    {"field": "tags", "operator": "arrayContains", "value": "x"},
                    {
                        "operator": "or",
                        "operands": [
                            {"field": "stars", "operator": "eq", "value": 1},
                            {"field": "stars", "operator": "eq", "value": 7},
                        ],
                    },
                ],
            },
            "a",
        ),
    ],
)
def test_the_filter_language(client: Any, filter: Any, ids: str) -> None:
    client.add(NS, content="tea", id="a", metadata={"scope": "work", "stars": 1, "tags": ["x", "y"]})
    client.add(NS, content="tea", id="b", metadata={"scope": "home", "stars": 2, "tags": ["x"], "done": True})
    client.add(NS, content="tea", id="c")
    assert "".join(document.id for document in listed(client, filter=filter, order="asc")) == ids
    settled(client, "c")
    found = client.search(NS, query="tea", filter=filter, search_mode="chunks", include={"documents": True})
    assert sorted(result.included.document.id for result in found.results) == sorted(ids)


def nested(levels: int) -> dict[str, Any]:
    predicate = {"field": "a", "operator": "eq", "value": 1}
    return predicate if levels == 1 else {"operator": "and", "operands": [nested(levels - 1)]}


def test_a_filter_has_five_levels_at_most(client: Any) -> None:
    assert listed(client, filter=nested(5)) == []
    with pytest.raises(sdk.BadRequestError) as caught:
        client.search(NS, query="tea", filter=nested(6))
    assert caught.value.body == {"error": "filter is nested more than 5 levels deep"}


def test_pages_have_numbers_and_an_order(client: Any) -> None:
    client.documents.batch_add(NS, documents=[{"content": f"note {n}", "id": f"n{n}"} for n in range(25)])
    default = client.list(NS, "documents")
    assert [document.id for document in default.documents] == [f"n{n}" for n in range(24, 14, -1)]
    assert (default.pagination.total_items, default.pagination.total_pages, default.pagination.current_page) == (
        25,
        3,
        1,
    )
    last = client.list(NS, "documents", page=3, limit=10, sort="createdAt", order="asc")
    assert [document.id for document in last.documents] == [f"n{n}" for n in range(20, 25)]
    assert client.list(NS, "documents", page=4).documents == []
    client.documents.update(NS, "n3", metadata={"a": 1})
    assert listed(client, sort="updatedAt", limit=1)[0].id == "n3"


def test_the_content_is_listed_where_it_is_wanted_and_published(emulator: Supermemory, client: Any) -> None:
    emulator.lag = 5.0
    client.add(NS, content="tea", id="slow")
    emulator.lag = 0.01
    plant(client, fast="coffee")
    assert {document.id: document.content for document in listed(client, include={"content": True})} == {
        "fast": "coffee",
        "slow": None,
    }
    (fast, slow) = listed(client)
    assert (fast.content, fast.system.memory_count, slow.system.memory_count) == (None, 1, 0)
    assert [chunk.document_id for chunk in client.list(NS, "chunks").chunks] == ["fast"]
    assert [memory.memory for memory in client.list(NS, "memories").memories] == ["coffee"]


def test_a_batch_has_an_outcome_for_each(client: Any) -> None:
    made = client.documents.batch_add(NS, documents=[{"content": "a", "id": "a"}, {"content": "b"}], dreaming="instant")
    assert (made.count, made.failed, [result.status for result in made.results]) == (2, 0, ["queued", "queued"])
    assert settled(client, made.results[1].id).content == "b"


def test_deleting_what_is_not_there_is_200_with_errors(client: Any) -> None:
    plant(client, one="tea")
    deleted = client.documents.delete(NS, ids=["one", "two"])
    assert (deleted.count, [(error.id, error.error) for error in deleted.errors]) == (
        1,
        [("two", "Document not found")],
    )
    with pytest.raises(sdk.NotFoundError):
        client.documents.get(NS, "one")
    assert client.search(NS, query="tea", threshold=0).results == []
    with pytest.raises(sdk.NotFoundError):
        client.documents.update(NS, "one", content="tea")


def test_forgetting_takes_memory_ids_and_leaves_the_chunk(client: Any) -> None:
    plant(client, one="Ann likes tea")
    nothing = client.memories.forget(NS, ids=["one"])
    assert (nothing.count, [error.id for error in nothing.errors]) == (0, ["one"])
    (memory,) = settled(client, "one").memories
    done = client.memories.forget(NS, ids=[memory.id])
    assert (done.count, done.matches[0].memory) == (1, "Ann likes tea")
    (left,) = client.search(NS, query="tea").results
    assert (left.memory, left.chunk) == (None, "Ann likes tea")
    assert client.memories.get(NS, memory.id).is_forgotten is True
    remembered = client.search(NS, query="tea", search_mode="memories", include={"forgotten": True}).results
    assert [(result.id, result.is_latest) for result in remembered] == [(memory.id, False)]
    assert [error.id for error in client.memories.forget(NS, ids=[memory.id]).errors] == [memory.id]


def test_forgetting_by_description(client: Any) -> None:
    plant(client, tea="Ann likes tea", car="Bob has a red car")
    preview = client.memories.forget_matching(NS, query="likes tea", dry_run=True)
    assert [match.memory for match in preview.matches] == ["Ann likes tea"]
    assert len(client.list(NS, "memories").memories) == 2
    assert client.memories.forget_matching(NS, query="likes tea", dry_run=False).count == 1
    assert [memory.memory for memory in client.list(NS, "memories").memories] == ["Bob has a red car"]


def test_the_profile_and_its_buckets(client: Any) -> None:
    plant(client, tea="Ann likes tea")
    assert client.profiles.set_buckets(NS, buckets={"interests": "what she likes"}).buckets == {
        "interests": "what she likes"
    }
    profile = client.profile(NS).profile
    assert ([fact.memory for fact in profile.dynamic], profile.buckets) == (["Ann likes tea"], {"interests": []})
    assert client.profiles.delete_buckets(NS, buckets=["interests", "unknown"]).buckets == {}
    assert client.profiles.get_buckets(NS).buckets == {}


def test_namespaces_are_listed_moved_and_deleted(client: Any) -> None:
    plant(client, one="tea")
    client.add("other", content="coffee")
    assert [one.namespace for one in client.namespaces.list().namespaces] == ["other", NS]
    assert [one.document_count for one in client.namespaces.list(q="omp").namespaces] == [1]
    assert client.namespaces.update(NS, supporting_context="a diary").supporting_context == "a diary"
    assert client.namespaces.get(NS).supporting_context == "a diary"
    assert client.namespaces.delete("other", move_to=NS).status == "queued"
    gone = client.namespaces.delete(NS)
    assert (gone.status, gone.deleted_documents_count) == ("deleted", 2)
    for again in (client.namespaces.get, client.namespaces.delete):
        with pytest.raises(sdk.NotFoundError):
            again(NS)
    assert client.organization.get().namespace_count == 0
    assert client.organization.update(organizational_context="tests").organizational_context == "tests"


def test_the_document_decides_what_is_a_bad_request(emulator: Supermemory, client: Any, documented: Documented) -> None:
    documented(emulator)
    attempts: list[Callable[[], Any]] = [
        lambda: client.add("not a namespace", content="tea"),
        lambda: client.add("n" * 101, content="tea"),
        lambda: client.add(NS, content="tea", id="i" * 256),
        lambda: client.add(NS, content="tea", metadata={"nested": {"a": 1}}),
        lambda: client.add(NS, content="tea", metadata={"mixed": ["a", 1]}),
        lambda: client.search(NS, query=""),
        lambda: client.search(NS, query="tea", limit=101),
        lambda: client.search(NS, query="tea", threshold=1.1),
        lambda: client.search(NS, query="tea", filter={"field": "a b", "operator": "eq", "value": 1}),
        lambda: client.search(NS, query="tea", filter={"field": "a", "operator": "gt", "value": "1"}),
        lambda: client.search(NS, query="tea", filter={"operator": "or", "operands": [nested(1)] * 201}),
        lambda: client.list(NS, "documents", limit=101),
        lambda: client.list(NS, "documents", page=0),
        lambda: client.list(NS, "dreams"),
        lambda: client.documents.batch_add(NS, documents=[{"content": "tea"}] * 601),
        lambda: client.documents.delete(NS, ids=[]),
    ]
    for attempt in attempts:
        with pytest.raises(sdk.BadRequestError) as caught:
            attempt()
        assert caught.value.body["success"] is False
        assert caught.value.body["error"][0]["message"]
    assert emulator.namespaces == {}


def test_credentials(emulator: Supermemory) -> None:
    with connect(emulator, api_key="wrong") as client, pytest.raises(sdk.AuthenticationError) as caught:
        client.add(NS, content="tea")
    assert (caught.value.status_code, caught.value.body) == (401, {"error": "Unauthorized"})
    assert emulator.namespaces == {}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (402, sdk.APIStatusError),
        (403, sdk.PermissionDeniedError),
        (409, sdk.ConflictError),
        (429, sdk.RateLimitError),
        (500, sdk.InternalServerError),
        (503, sdk.InternalServerError),
    ],
)
def test_an_error_status_is_the_sdks_own_exception(
    emulator: Supermemory, client: Any, status: int, error: type[Exception]
) -> None:
    emulator.faults.next(Status(status))
    with pytest.raises(error) as caught:
        client.add(NS, content="tea")
    assert getattr(caught.value, "status_code", None) == status
    assert emulator.counters.requests == 1


def test_the_sdk_waits_for_as_long_as_retry_after_says(emulator: Supermemory) -> None:
    emulator.faults.next(Status(429, retry_after=1))
    started = time.monotonic()
    with connect(emulator, max_retries=1) as client:
        client.add(NS, content="tea", id="one")
    assert time.monotonic() - started >= 1.0
    assert [exchange.status for exchange in emulator.counters.exchanges] == [429, 200]


def test_a_retried_add_without_an_id_is_stored_twice_and_with_one_once(emulator: Supermemory) -> None:
    with connect(emulator, max_retries=1) as client:
        for options, stored in (({}, 2), ({"id": "one"}, 1)):
            emulator.faults.next(CloseConnection(applied=True))
            client.add(f"ns-{stored}", content="tea", **options)
            assert len(emulator.namespaces[f"ns-{stored}"].documents) == stored


def test_html_with_status_200_raises_and_a_timeout_leaves_the_write_done(emulator: Supermemory, client: Any) -> None:
    emulator.faults.next(HtmlWith200())
    with pytest.raises(sdk.APIError):
        client.documents.get(NS, "one")
    emulator.faults.next(Latency(10.0))
    with pytest.raises(sdk.APITimeoutError):
        client.add(NS, content="tea", id="one", timeout=0.1)
    emulator.counters.wait_for(lambda seen: seen.disconnects == 1)
    assert client.documents.get(NS, "one").content == "tea"


def test_the_raw_sdk_walks_out_of_its_namespace(client: Any) -> None:
    client.add("victim", content="the victim's secret", id="s", dreaming="instant")
    settled(client, "s", "victim")
    assert texts(client.search("me/../victim", query="secret", search_mode="memories")) == ["the victim's secret"]
    assert client.documents.get("me", "../../victim/document/s").content == "the victim's secret"


def test_an_id_that_is_percent_encoded_stays_one_segment(emulator: Supermemory, client: Any) -> None:
    client.add(NS, content="tea", id="a/b ü?#")
    assert client.documents.get(NS, "a%2Fb%20%C3%BC%3F%23").id == "a/b ü?#"
    assert emulator.counters.by_route["GET /ns/{namespace}/document/{id}"] == 1


def test_an_answer_that_the_document_forbids_is_caught(documented: Documented, monkeypatch: pytest.MonkeyPatch) -> None:
    from openproto_conformance.emulators.supermemory import answers

    monkeypatch.setattr(answers, "moment", lambda seconds: "yesterday")
    with Supermemory() as emulator, connect(emulator) as client:
        documented(emulator)
        client.add(NS, content="tea", id="one")
        with pytest.raises(sdk.InternalServerError, match="599"):
            client.documents.get(NS, "one")
    assert len(emulator.violations) == 1
    assert emulator.violations[0].startswith("GET /ns/{namespace}/document/{id}: 200: system/updatedAt: ")
