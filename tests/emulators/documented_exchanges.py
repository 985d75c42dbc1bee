"""The vendors that publish an OpenAPI document: what they were seen to answer, and what the documents forbid."""

from __future__ import annotations

from typing import Any

from player import Ask, Step

MISSING = "123e4567-e89b-42d3-8456-426614174000"
SMALL = "openai/text-embedding-3-small"


def passages(*texts: str) -> list[Any]:
    """Return hits of a search at Letta, whose score is always zero."""
    return [{"passage": {"text": text}, "score": 0.0} for text in texts]


FIND = "POST /v1/passages/search"
ARCHIVE, IN, OTHERS = "POST /v1/archives/", "/v1/archives/$ann/passages", "/v1/archives/$bob/passages"
GREEN: dict[str, Any] = {"text": "green tea", "metadata": {"n": [1, None]}, "created_at": "2024-01-02T00:00:00Z"}

LETTA: tuple[Step, ...] = (
    Ask("GET /v1/health/", None, {"version": "0.16.8", "status": "ok"}, headers={"authorization": "none"}),
    Ask(ARCHIVE, {"name": "x"}, {"detail": "Unauthorized"}, 401, {"authorization": "none"}),
    Ask(ARCHIVE, {"name": "ann", "description": "d"}, {"id": "$ann", "embedding_config": {"handle": SMALL}}),
    Ask(ARCHIVE, {"name": "ann"}, {"id": "$twin"}),
    Ask(ARCHIVE, {"name": "bob", "embedding": "openai/text-embedding-ada-002"}, {"id": "$bob"}),
    # Names are not unique, and cursors are archives.
    Ask("GET /v1/archives/?limit=2", None, [{"id": "$bob"}, {"id": "$twin"}]),
    Ask("GET /v1/archives/?order=asc&after=$ann&before=$bob", None, [{"id": "$twin"}]),
    Ask(f"GET /v1/archives/?after=archive-{MISSING}", status=404),
    Ask("PATCH /v1/archives/$twin", {"name": "eve", "description": None}, {"name": "eve"}),
    Ask("GET /v1/archives/$ann", None, {"description": "d"}),
    # A passage comes back as it was written, and is never changed.
    Ask(f"POST {IN}", {"text": "a", "created_at": "2024-01-03T00:00:00"}, {"created_at": "2024-01-03T00:00:00Z"}),
    Ask(f"POST {IN}", {"text": "", "created_at": "2024-01-01T00:00:00Z"}, {"tags": None, "metadata": {}}),
    Ask(f"POST {IN}", {"text": "tea", "created_at": "yesterday"}, status=400),
    Ask(f"POST {IN}", {**GREEN, "tags": ["b", "a", "b"]}, {"id": "$tea", **GREEN, "tags": {"a", "b"}}),
    Ask(f"PATCH {IN}/$tea", {"text": "coffee"}, status=405),
    # Oldest first without a query; dates are looked at before the limit and tags after it.
    Ask(FIND, {"archive_id": "$ann"}, passages("", "green tea", "a")),
    Ask(FIND, {"archive_id": "$ann", "start_date": "2024-01-02T00:00:00Z", "limit": 1}, passages("green tea")),
    Ask(FIND, {"archive_id": "$ann", "query": "a", "tags": ["a"], "limit": 1}, []),
    Ask(FIND, {"archive_id": "$ann", "tags": ["a", "z"], "tag_match_mode": "all"}, []),
    Ask(FIND, {"archive_id": "$ann", "tags": ["a", "b"], "tag_match_mode": "all"}, passages("green tea")),
    # A batch is written at one moment.
    Ask(f"POST {OTHERS}/batch", {"passages": [{"text": "a"}, {"text": "b"}]}, [{"created_at": "$now"}] * 2),
    # What is elsewhere is 400, and what is gone is 404; an archive that is gone is only empty for one search.
    Ask(f"DELETE {OTHERS}/$tea", status=400),
    Ask(f"DELETE {IN}/$tea", status=204),
    Ask(f"DELETE {IN}/$tea", status=404),
    Ask("DELETE /v1/archives/$bob", status=204),
    *(Ask(f"{method} /v1/archives/$bob", status=404) for method in ("DELETE", "GET")),
    Ask(f"POST {OTHERS}", {"text": "tea"}, status=404),
    Ask(FIND, {"archive_id": "$bob"}, []),
    Ask(FIND, {"query": "tea"}, {"detail": "An unknown error occurred"}, 500),
    # Without an embedding model, substrings are found and batches fail.
    {"default_embedding": None},
    Ask(ARCHIVE, {"name": "bare"}, {"id": "$bare", "embedding_config": None}),
    Ask("POST /v1/archives/$bare/passages", {"text": "Green Tea"}),
    Ask(FIND, {"archive_id": "$bare", "query": "green t"}, passages("Green Tea")),
    Ask(FIND, {"archive_id": "$bare", "query": "tea green"}, []),
    Ask("POST /v1/archives/$bare/passages/batch", {"passages": [{"text": "a"}]}, status=500),
)

ADD, FIND0, LIST = "POST /v3/memories/add/", "POST /v3/memories/search/", "POST /v3/memories/"
ANN = {"user_id": "ann"}


def says(text: str, **options: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "infer": False, **ANN, **options}


def added(name: str) -> Any:
    return {"status": "SUCCEEDED", "results": [{"id": name, "event": "ADD"}]}


MEM0: tuple[Step, ...] = (
    Ask("GET /v1/ping/", None, {"status": "ok"}),
    Ask("GET /v1/ping/", None, {"detail": "Unauthorized"}, 401, {"authorization": "Token wrong"}),
    {"lag": 1.0},
    # There at once, and found later.
    Ask(ADD, says("likes tea", metadata={"mood": "calm"}, run_id="1"), added("$tea")),
    Ask(FIND0, {"query": "tea", "filters": ANN}, {"results": []}),
    1.0,
    Ask(FIND0, {"query": "tea", "filters": ANN}, {"results": [{"id": "$tea", "run_id": "1"}]}),
    # An exact repeat for the same user, agent, and run is dropped, which only the empty results show.
    Ask(ADD, says("likes tea", run_id="1"), {"status": "SUCCEEDED", "results": []}),
    Ask(ADD, says("likes tea"), added("$again")),
    Ask(ADD, says("likes tea", user_id="bob"), added("$bob")),
    Ask("DELETE /v1/memories/$again/"),
    Ask(ADD, says("likes tea"), added("$new")),
    Ask("GET /v1/entities/?page=1", None, {"count": 3, "next": None, "total_users": 2, "total_runs": 1}),
    # What a model reads is pending first.
    Ask(ADD, says("likes rain", infer=True), {"status": "PENDING", "event_id": "$event"}),
    Ask("GET /v1/event/$event/", None, {"status": "PENDING", "results": []}),
    1.0,
    # Filters.
    *(
        Ask(LIST, {"filters": filters}, {"count": count})
        for filters, count in (
            ({"AND": [ANN, {"metadata": {"mood": "calm"}}]}, 1),
            ({**ANN, "metadata": {"mood": {"contains": "cal"}}}, 1),
            ({"OR": [{"user_id": "bob"}, {"user_id": {"in": ["ann"]}}]}, 4),
            ({"user_id": "*", "NOT": [{"run_id": "*"}]}, 3),
            ({**ANN, "created_at": {"gte": "2999-01-01"}}, 0),
        )
    ),
    *(
        Ask(FIND0, {"query": "tea", "filters": filters}, status=status)
        for filters, status in (
            ({}, 400),
            ({**ANN, "metadata": {"n": {"gt": 1}}}, 400),
            ({"user_id": {"nin": ["bob"]}}, 400),
            ({"NOT": [ANN]}, 400),
            ({**ANN, "keywords": "tea"}, 500),
        )
    ),
    # Pages, newest first.
    Ask(LIST + "?page=2&page_size=2", {"filters": ANN}, {"count": 3, "next": None, "results": [{"id": "$tea"}]}),
    # What has expired is hidden, but not from a get.
    Ask(ADD, says("old", user_id="eve", expiration_date="2020-01-31"), added("$old")),
    1.0,
    Ask(LIST, {"filters": {"user_id": "eve"}, "show_expired": True}, {"count": 1}),
    Ask("GET /v1/memories/$old/", None, {"expiration_date": "2020-01-31"}),
    # Changes.
    Ask("PUT /v1/memories/$tea/", {"text": "likes coffee"}, {"memory": "likes coffee", "metadata": {"mood": "calm"}}),
    Ask("PUT /v1/batch/", {"memories": [{"memory_id": "$new", "text": "likes honey"}]}),
    Ask("DELETE /v1/batch/", {"memories": [{"memory_id": "$tea"}, {"memory_id": "$new"}]}),
    Ask("GET /v1/memories/$tea/history/", None, [{"event": "ADD"}, {"event": "UPDATE"}, {"event": "DELETE"}]),
    Ask("GET /v1/memories/$tea/", status=404),
    # A deletion by filter is queued, and a star means everybody.
    Ask("DELETE /v1/memories/?user_id=*", None, {"event_id": "$gone"}),
    Ask(LIST, {"filters": {"user_id": "*"}}, {"count": 2}),
    1.0,
    Ask("GET /v1/event/$gone/", None, {"status": "SUCCEEDED"}),
    Ask(LIST, {"filters": {"user_id": "*"}}, {"count": 0}),
)

NS = "/ns/ada"
DOC, SEARCH, LISTED = f"{NS}/document", f"POST {NS}/search", f"POST {NS}/list/documents"


def listed(*ids: str) -> Any:
    return {"documents": [{"id": id} for id in ids]}


def state(status: str, dreaming: str, *memories: str) -> Any:
    told = [{"memory": memory, "metadata": {"stars": 3}, "version": 1} for memory in memories]
    return {"system": {"status": status, "dreamingStatus": dreaming}, "memories": told}


def where(field: str, operator: str, value: Any, **options: Any) -> dict[str, Any]:
    return {"field": field, "operator": operator, "value": value, **options}


def parents(id: str) -> dict[str, Any]:
    return {"included": {"related": {"parents": [{"id": id}]}, **CAR["included"]}}


def nested(levels: int) -> dict[str, Any]:
    return where("a", "eq", 1) if levels == 1 else {"operator": "and", "operands": [nested(levels - 1)]}


CAR: dict[str, Any] = {"included": {"document": {"id": "car"}}}
FILTERED: dict[str, dict[str, Any]] = {
    "a": {"scope": "work", "stars": 1, "tags": ["x", "y"]},
    "b": {"scope": "home", "stars": 2, "tags": ["x"], "done": True},
    "c": {},
}
STARS_1_OR_7 = {"operator": "or", "operands": [where("stars", "eq", 1), where("stars", "eq", 7)]}
FILTERS: tuple[tuple[Any, str], ...] = (
    (where("scope", "eq", "work"), "a"),
    (where("scope", "eq", "WORK", caseSensitive=False), "a"),
    (where("scope", "eq", "WORK"), ""),
    (where("scope", "notContains", "o"), "c"),
    (where("stars", "gte", 1), "ab"),
    (where("stars", "lte", 2), "ab"),
    (where("stars", "eq", True), ""),
    (where("done", "eq", True), "b"),
    (where("tags", "arrayNotContains", "y"), "bc"),
    ({"operator": "and", "operands": [where("tags", "arrayContains", "x"), STARS_1_OR_7]}, "a"),
    (nested(5), ""),
)

SUPERMEMORY: tuple[Step, ...] = (
    Ask(f"POST {DOC}", {"content": "tea"}, {"error": "Unauthorized"}, 401, {"authorization": "none"}),
    {"lag": 1.0},
    # From queued to done; memories form later, sooner where dreaming is instant, and never for superrag.
    Ask(f"POST {DOC}", {"content": "Ann likes tea", "id": "tea", "metadata": {"stars": 3}}, {"status": "queued"}),
    Ask(f"POST {DOC}", {"content": "red car", "id": "car", "dreaming": "instant"}),
    Ask(f"POST {DOC}", {"content": "river", "id": "river", "taskType": "superrag"}),
    0.3,
    Ask(f"GET {DOC}/tea?include=memories", None, state("extracting", "dreaming")),
    Ask(SEARCH, {"query": "tea", "threshold": 0}, {"results": []}),
    0.6,
    Ask(f"GET {DOC}/tea?include=memories", None, state("indexing", "dreaming")),
    0.2,
    Ask(f"GET {DOC}/tea?include=memories", None, state("done", "dreaming")),
    Ask(SEARCH, {"query": "Ann likes tea"}, {"results": [{"chunk": "Ann likes tea", "similarity": 1.0}]}),
    1.0,
    2.0,
    Ask(f"GET {DOC}/tea?include=memories", None, state("done", "done", "Ann likes tea")),
    Ask(f"GET {DOC}/river?include=chunks,memories", None, {"chunks": [{"content": "river"}], "memories": []}),
    # A search finds chunks and memories from a threshold on, with what is to be included.
    Ask(SEARCH, {"query": "Ann likes tea", "searchMode": "memories"}, {"results": [{"memory": "Ann likes tea"}]}),
    Ask(SEARCH, {"query": "red car", "include": {"documents": True, "related": True}}, {"results": [CAR, CAR]}),
    # An add under the same id appends, and of the same text does nothing; an update replaces.
    Ask(f"POST {DOC}", {"content": "Ann likes tea", "id": "tea"}, {"status": "done"}),
    Ask(f"POST {DOC}", {"content": "and cake", "id": "tea"}, {"status": "queued"}),
    Ask(f"GET {DOC}/tea", None, {"content": "Ann likes tea\nand cake"}),
    Ask(f"PATCH {DOC}/car", {"metadata": {"b": True}}, {"status": "done"}),
    Ask(f"PATCH {DOC}/car", {"content": "blue boat"}, {"status": "queued"}),
    Ask(f"{LISTED}?order=asc&limit=2", {"include": {"content": True}}, {"documents": [{}, {"content": "red car"}]}),
    9.0,
    Ask(SEARCH, {"query": "red car"}, {"results": []}),
    Ask(SEARCH, {"query": "blue boat", "searchMode": "memories"}, {"results": [{"id": "$boat", "isLatest": True}]}),
    Ask(f"GET {NS}/memories/$boat?include=related&include=documents", None, {"version": 2, **parents("$old")}),
    Ask(f"GET {NS}/memories/$old?include=related", None, {"isLatest": False}),
    # Lists.
    Ask(LISTED, None, {**listed("river", "car", "tea"), "pagination": {"totalItems": 3, "totalPages": 1}}),
    Ask(f"{LISTED}?sort=updatedAt&limit=1", None, listed("car")),
    Ask(f"{LISTED}/memory-counts", {"ids": ["car", "none"]}, {"counts": [{"id": "car", "memoryCount": 1}]}),
    Ask(f"POST {NS}/list/chunks?limit=1", None, {"chunks": [{"documentId": "river"}]}),
    Ask(f"POST {NS}/list/memories?limit=1", None, {"memories": [{"memory": "blue boat"}]}),
    # Deleting what is not there is a 200 with errors; memories have ids of their own, and chunks outlive them.
    Ask(f"DELETE {DOC}", {"ids": ["river", "none"]}, {"count": 1, "errors": [{"id": "none"}]}),
    Ask(f"DELETE {NS}/memories", {"ids": ["car"]}, {"count": 0, "errors": [{"id": "car"}]}),
    Ask(f"DELETE {NS}/memories", {"ids": ["$boat"]}, {"count": 1, "matches": [{"memory": "blue boat"}]}),
    Ask(SEARCH, {"query": "blue boat"}, {"results": [{"chunk": "blue boat", "memory": None}]}),
    Ask(f"DELETE {NS}/memories/semantic", {"query": "Ann likes tea", "dryRun": True}, {"matches": [{}]}),
    Ask(f"DELETE {NS}/memories/semantic", {"query": "Ann likes tea", "dryRun": False}, {"count": 1}),
    # A document may fail, or be missing at first.
    Ask(f"POST {NS}/document/batch", {"documents": [{"content": "x", "id": "bad"}]}, {"count": 1, "failed": 0}),
    1.0,
    {"missing_for": 1.0},
    Ask(f"POST {DOC}", {"content": "late", "id": "late"}),
    Ask(f"GET {DOC}/late", status=404),
    1.0,
    Ask(f"GET {DOC}/late", None, {"content": "late"}),
    # The filter language.
    *(Ask("POST /ns/f/document", {"content": "x", "id": id, "metadata": FILTERED[id]}) for id in FILTERED),
    *(Ask("POST /ns/f/list/documents?order=asc", {"filter": one}, listed(*ids)) for one, ids in FILTERS),
    Ask(SEARCH, {"query": "x", "filter": nested(6)}, {"error": "filter is nested more than 5 levels deep"}, 400),
    # Namespaces, profiles, the organization.
    Ask("GET /namespaces?q=ad", None, {"namespaces": [{"namespace": "ada", "documentCount": 4}]}),
    Ask("GET /ns", None, {"namespaces": [{"namespace": "f"}, {"namespace": "ada"}]}),
    Ask(f"PATCH {NS}", {"supportingContext": "a diary"}),
    Ask(f"GET {NS}", None, {"supportingContext": "a diary"}),
    Ask(f"PUT {NS}/profile/buckets", {"buckets": {"a": "b"}}, {"buckets": {"a": "b"}}),
    Ask(f"GET {NS}/profile/buckets", None, {"buckets": {"a": "b"}}),
    Ask(f"POST {NS}/profile", {}, {"profile": {"buckets": {"a": []}}}),
    Ask(f"DELETE {NS}/profile/buckets", {"buckets": ["a", "z"]}, {"buckets": {}}),
    Ask("DELETE /ns/f?moveTo=ada", None, {"status": "queued"}, 202),
    Ask(f"DELETE {NS}", None, {"status": "deleted", "deletedDocumentsCount": 7}),
    Ask("PATCH /organization", {"organizationalContext": "tests"}),
    Ask("GET /organization", None, {"organizationalContext": "tests", "namespaceCount": 0}),
)


REFUSED: dict[str, tuple[Ask, ...]] = {
    "letta": (
        Ask("GET /v1/archives/nope", None, {"examples": [f"archive-{MISSING}"]}, 422),
        Ask(f"POST /v1/archives/archive-{MISSING}/passages", {"text": 5}, status=422),
        Ask(FIND, {"archive_id": f"archive-{MISSING}", "limit": 101}, status=422),
    ),
    "supermemory": tuple(
        Ask(route, body, {"success": False, "error": [{}]}, 400)
        for route, body in (
            ("POST /ns/not%20a%20namespace/document", {"content": "tea"}),
            (f"POST {DOC}", {"content": "tea", "metadata": {"mixed": ["a", 1]}}),
            (SEARCH, {"query": "tea", "filter": where("a b", "eq", 1)}),
            (f"{LISTED}?limit=101", None),
        )
    ),
}
"""Some of what the vendor's document forbids, in the vendor's own shape."""
