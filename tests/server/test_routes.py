"""What the binding alone has: batches, two forms of a search, health, versions, and an OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from schemathesis_run import schemathesis
from server_tools import Serve, error_of, scripted_app

from openproto import Memory
from openproto.errors import ERROR_CODES, OpenProtoError, ProviderError, ProviderUnavailableError, RateLimitedError
from openproto.server.keys import new_key

ITEM = {"content": "green tea", "user_id": "ada", "key": "drink"}


def add(client: httpx.Client, content: str = "tea", **fields: Any) -> dict[str, Any]:
    made = client.post("/memories", json={"content": content, "user_id": "ada", **fields})
    assert made.status_code == 201, made.text
    record: dict[str, Any] = made.json()
    return record


def test_an_integer_may_be_written_as_its_schema_allows(client: httpx.Client) -> None:
    add(client)
    found = client.post("/memories/search", json={"q": "tea", "user_id": "ada", "limit": 1.0})
    assert len(found.json()["results"]) == 1
    assert client.post("/context", json={"query": "tea", "user_id": "ada", "token_budget": 5e2}).is_success
    for limit in (1.5, "1", True, None, 101.0):
        body = {"q": "tea", "user_id": "ada", "limit": limit}
        error_of(client.post("/memories/search", json=body), 400, "invalid_request")


def test_search_by_get_and_by_post_are_the_same(client: httpx.Client) -> None:
    for tags in (["t"], ["u"], ["t", "u"]):
        add(client, f"green tea {tags}", scope="kitchen", tags=tags)
    wanted = {"q": "tea", "user_id": "ada", "scope": "kitchen", "tag": ["t", "u"], "as_of": "2999-01-01T00:00:00Z"}
    by_get = client.get("/memories/search", params={**wanted, "limit": "5", "min_score": "0.0", "explain": "true"})
    by_post = client.post("/memories/search", json={**wanted, "limit": 5, "min_score": 0.0, "explain": True})
    assert by_get.json() == by_post.json()
    (hit,) = by_get.json()["results"]
    assert (hit["memory"]["tags"], hit["parts"].keys()) == (["t", "u"], {"words", "neighbours"})
    error_of(client.get("/memories/search", params={**wanted, "explain": "yes"}), 400, "invalid_request")
    assert "parts" not in client.get("/memories/search", params=wanted).json()["results"][0]


def test_a_batch_has_an_outcome_for_each_of_at_most_500_items_in_order(client: httpx.Client) -> None:
    tea = {"content": "tea", "user_id": "ada"}
    items: list[Any] = [tea, {**tea, "content": ""}, "no object", {**tea, "unknown": 1}, {**tea, "content": "milk"}]
    answer = client.post("/memories/batch", json={"items": items})
    outcomes = answer.json()["outcomes"]
    assert (answer.status_code, [each["status"] for each in outcomes]) == (207, [201, 400, 400, 400, 201])
    assert {each["error"]["request_id"] for each in outcomes if "error" in each} == {answer.headers["x-request-id"]}
    assert outcomes[4]["memory"]["content"] == "milk"
    many = [{"content": f"note {n}", "user_id": "eve"} for n in range(501)]
    error_of(client.post("/memories/batch", json={"items": many}), 400, "invalid_request")
    assert client.get("/memories", params={"user_id": "eve"}).json()["items"] == []
    assert len(client.post("/memories/batch", json={"items": many[1:]}).json()["outcomes"]) == 500


@pytest.mark.parametrize("given", ["", "a b", "é", "a" * 65, "{}"])
def test_a_request_id_of_another_form_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/capabilities", headers=[(b"X-Request-Id", given.encode())])
    assert len(answer.headers["x-request-id"]) == 16


def test_capabilities_are_the_backend_s_and_an_id_may_look_like_a_path(client: httpx.Client, tmp_path: Path) -> None:
    with Memory("sqlite", path=tmp_path / "other.db", embedder="none") as memory:
        assert client.get("/capabilities").json() == memory.capabilities().to_wire()
    for id in ("a%2Fb", "%2E%2E", "%3Fx", "a%0Ab", "%25"):
        assert "provider" in error_of(client.get(f"/memories/{id}"), 404, "not_found"), id


def test_health_answers_in_bounded_time(client: httpx.Client, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "provider": "sqlite"}
    _, app = scripted_app(ProviderUnavailableError("the backend is not there"))
    assert error_of(serve(app).get("/healthz"), 503, "provider_unavailable")["message"] == "the backend is not there"
    monkeypatch.setattr("openproto.server.routes.HEALTH_TIMEOUT", 0.2)
    hangs, app = scripted_app()
    error_of(serve(app).get("/healthz"), 503, "provider_unavailable")
    assert hangs.cancelled.is_set()


def test_the_time_of_a_retry_is_given_in_whole_seconds_and_exactly(serve: Serve) -> None:
    _, app = scripted_app(RateLimitedError("slowly", retry_after=1.25))
    answer = serve(app).get("/memories/x")
    assert error_of(answer, 429, "rate_limited")["x-openproto"] == {"retry_after": 1.25}
    assert answer.headers["retry-after"] == "2"


def test_put_and_a_version_that_is_gone_have_their_own_statuses(client: httpx.Client) -> None:
    none, star = {"If-None-Match": "*"}, {"If-Match": "*"}
    first = client.put("/memories", json=ITEM, headers=none)
    assert (first.status_code, first.headers["etag"]) == (201, f'"{first.json()["version"]}"')
    error_of(client.put("/memories", json=ITEM, headers=none), 412, "conflict")
    error_of(client.post("/memories", json=ITEM), 409, "conflict")
    error_of(client.put("/memories", json={"content": "tea", "user_id": "ada"}), 400, "invalid_request")
    path, stale = f"/memories/{first.json()['id']}", {"If-Match": first.headers["etag"]}
    second = client.patch(path, json={"source": {"app": "a"}, "x-note": 1}, headers=stale)
    assert (second.json()["source"], second.json()["x-note"]) == ({"app": "a"}, 1)
    found = client.get("/memories/by-key", params={"user_id": "ada", "key": "drink"})
    assert (found.json(), found.headers["etag"]) == (second.json(), second.headers["etag"])
    error_of(client.put("/memories", json=ITEM, headers=stale), 412, "conflict")
    error_of(client.patch(path, json={"content": "x"}, headers=stale), 412, "conflict")
    error_of(client.delete(path, headers=stale), 412, "conflict")
    assert client.put("/memories", json=ITEM, headers={"If-Match": second.headers["etag"]}).status_code == 200
    assert client.patch(path, json={"tags": ["y"]}, headers=star).is_success  # whichever there is
    assert client.delete(path, headers=star).is_success
    error_of(client.delete(path, headers=star), 404, "not_found")


@pytest.mark.parametrize("value", ["v1", 'W/"v1"', '"v1", "v2"', '""', '"absent"', '"a b"', f'"{"v" * 65}"'])
def test_a_precondition_that_could_mean_anything_is_refused(client: httpx.Client, value: str) -> None:
    error_of(client.delete("/memories/m1", headers={"If-Match": value}), 400, "invalid_request")
    either = {"If-None-Match": "*", "If-Match": '"v1"'}
    for headers in ({"If-Match": value}, {"If-Match": "*"}, {"If-None-Match": value}, either):
        error_of(client.put("/memories", json=ITEM, headers=headers), 400, "invalid_request")


def test_what_is_wrong_with_a_record_to_restore_is_named_by_its_place(client: httpx.Client) -> None:
    record = client.put("/memories", json=ITEM).json()
    broken = {"records": [record, {**record, "created_at": "yesterday"}]}
    message = error_of(client.post("/memories/restore", json=broken), 400, "invalid_request")["message"]
    assert "records.1.created_at" in message


ROUTES = {
    "/memories": {"post", "put", "get", "delete"},
    "/memories/by-key": {"get"},
    "/memories/restore": {"post"},
    "/memories/batch": {"post"},
    "/memories/search": {"get", "post"},
    "/memories/{id}": {"get", "patch", "delete"},
    "/context": {"post"},
    "/audit": {"get"},
    "/scopes": {"get"},
    "/users": {"get"},
    "/capabilities": {"get"},
    "/healthz": {"get"},
}
KINDS = {kind.code: kind for kind in (*OpenProtoError.__subclasses__(), *ProviderError.__subclasses__())}


def test_generated_requests_find_no_answer_that_is_not_declared() -> None:
    run = schemathesis(10, with_keys=True, phases="fuzzing")  # `make check-http` runs all of them
    assert run.ok, run.output
    assert run.cases > 100


def test_every_route_is_declared_with_errors_and_key(client: httpx.Client, serve_file: Serve) -> None:
    answer = client.get("/openapi.json")
    document = answer.json()
    assert document["openapi"].startswith("3.1")
    assert {path: set(operations) for path, operations in document["paths"].items()} == ROUTES
    assert set(re.findall(r"#/components/schemas/([\w-]+)", answer.text)) <= set(document["components"]["schemas"])
    assert "ValidationError" not in answer.text
    backend = {str(KINDS[code]("").http_status) for code in ERROR_CODES} - {"401", "404", "409", "413", "429"}
    locked = serve_file(keys=[new_key("n", ["*"])[1]]).get("/openapi.json").json()["paths"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert backend <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Envelope"}
            assert "security" not in operation
            assert ("security" in locked[path][method]) == (path not in ("/capabilities", "/healthz"))
