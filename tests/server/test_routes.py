"""Every route of the binding, and that nothing is lost or changed on the wire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from server_tools import Serve, error_of, scripted_app, sqlite_app

from openproto import AsyncMemory, Memory
from openproto.errors import ProviderUnavailableError, RateLimitedError
from openproto.server import ServerSettings, create_app

WHOLE: dict[str, Any] = {
    "content": "tea at noon \U0001f375",
    "user_id": "ada",
    "scope": "kitchen/tea",
    "tags": ["warm", "daily"],
    "source": {"app": "editor", "type": "imported", "ref": "line 7"},
    "confidence": 0.1 + 0.2,
    "valid_from": "2020-01-01T00:00:00.123456Z",
    "valid_to": "2999-12-31T23:59:59.999999Z",
    "x-mem0": {"deep": [1, 2.5, None, {"a": "b"}], "pi": 3.141592653589793},
    "x-other": False,
}


def add(client: httpx.Client, content: str = "tea at noon", user_id: str = "ada", **fields: Any) -> dict[str, Any]:
    made = client.post("/memories", json={"content": content, "user_id": user_id, **fields})
    assert made.status_code == 201, made.text
    record: dict[str, Any] = made.json()
    return record


def test_a_moment_of_any_offset_and_century_keeps_its_microseconds_in_utc(client: httpx.Client) -> None:
    assert add(client, valid_from="2024-06-01T12:00:00.5+02:00")["valid_from"] == "2024-06-01T10:00:00.500000Z"
    assert add(client, valid_from="1970-01-01T00:00:00.000001Z")["valid_from"] == "1970-01-01T00:00:00.000001Z"


def test_a_server_may_stand_before_another_in_one_process(serve: Serve, tmp_path: Path) -> None:
    behind = serve(sqlite_app(tmp_path / "memory.db", token_counter=len))
    front = serve(create_app(AsyncMemory("passthrough", base_url=str(behind.base_url)), ServerSettings()))
    ids = [add(front, f"tea number {n}")["id"] for n in range(5)]
    assert front.patch(f"/memories/{ids[0]}", json={"content": "milk"}).json()["content"] == "milk"
    # Each counts with its own counter.
    block = behind.post("/context", json={"query": "tea", "user_id": "ada", "token_budget": 110}).json()
    assert block["token_count"] == len(block["text"]) <= 110
    assert len(block["citations"]) == 2


def test_an_integer_may_be_written_as_its_schema_allows(client: httpx.Client) -> None:
    add(client, "tea")
    found = client.post("/memories/search", json={"q": "tea", "user_id": "ada", "limit": 1.0})
    assert len(found.json()["results"]) == 1
    assert client.post("/context", json={"query": "tea", "user_id": "ada", "token_budget": 5e2}).is_success
    for limit in (1.5, "1", True, None, 101.0):
        body = {"q": "tea", "user_id": "ada", "limit": limit}
        error_of(client.post("/memories/search", json=body), 400, "invalid_request")


def test_search_by_get_and_by_post_are_the_same(client: httpx.Client) -> None:
    add(client, "green tea", scope="kitchen", tags=["t"])
    add(client, "tea pot", scope="shop")
    wanted = {"q": "tea", "user_id": "ada", "scope": "kitchen", "tag": "t", "as_of": "2999-01-01T00:00:00Z"}
    by_get = client.get("/memories/search", params={**wanted, "limit": "5", "min_score": "0.0", "explain": "true"})
    by_post = client.post("/memories/search", json={**wanted, "limit": 5, "min_score": 0.0, "explain": True})
    assert by_get.json() == by_post.json()
    assert by_get.json()["results"][0]["parts"].keys() == {"words", "neighbours"}
    error_of(client.get("/memories/search", params={**wanted, "explain": "yes"}), 400, "invalid_request")
    assert "parts" not in client.get("/memories/search", params=wanted).json()["results"][0]
    assert [hit["memory"]["content"] for hit in by_get.json()["results"]] == ["green tea"]


def test_a_batch_has_an_outcome_for_each_of_at_most_500_items_in_order(client: httpx.Client) -> None:
    items: list[Any] = [
        WHOLE,
        {"content": "", "user_id": "ada"},
        "no object",
        {"content": "tea", "user_id": "ada", "idempotency_key": "batch"},
        {"content": "tea", "user_id": "ada", "idempotency_key": "batch"},
        {"content": "milk", "user_id": "ada", "idempotency_key": "batch"},
        {"content": "x", "user_id": "ada", "unknown": 1},
    ]
    answer = client.post("/memories/batch", json={"items": items})
    assert answer.status_code == 207
    outcomes = answer.json()["outcomes"]
    assert [each["status"] for each in outcomes] == [201, 400, 400, 201, 201, 409, 400]
    assert {name: outcomes[0]["memory"][name] for name in WHOLE} == WHOLE
    assert outcomes[3] == outcomes[4]
    assert outcomes[5]["error"]["code"] == "conflict"
    assert {each["error"]["request_id"] for each in outcomes if "error" in each} == {answer.headers["x-request-id"]}
    many = [{"content": f"note {n}", "user_id": "eve"} for n in range(501)]
    error_of(client.post("/memories/batch", json={"items": many}), 400, "invalid_request")
    assert client.get("/memories", params={"user_id": "eve"}).json()["items"] == []
    outcomes = client.post("/memories/batch", json={"items": many[:500]}).json()["outcomes"]
    assert [each["memory"]["content"] for each in outcomes] == [item["content"] for item in many[:500]]


def test_audit_entries_carry_the_request_s_id_and_the_sender_s_app(client: httpx.Client) -> None:
    headers = {"X-Request-Id": "req-1.a_B", "X-OMP-App": "éditeur".encode()}
    made = client.post("/memories", json={"content": "tea", "user_id": "ada"}, headers=headers)  # type: ignore[arg-type]
    assert made.headers["x-request-id"] == "req-1.a_B"
    client.get(f"/memories/{made.json()['id']}")
    entries = client.get("/audit", params={"user_id": "ada", "app": "éditeur"}).json()["entries"]
    assert [(entry["action"], entry["request_id"], entry["app"]) for entry in entries] == [
        ("add", "req-1.a_B", "éditeur")
    ]
    assert entries[0]["memory_id"] == made.json()["id"]
    everything = {"user_id": "ada", "memory_id": made.json()["id"], "since": made.json()["created_at"], "limit": "10"}
    found = client.get("/audit", params=everything).json()["entries"]
    assert "get" in [entry["action"] for entry in found]


@pytest.mark.parametrize("given", ["", "a b", "é", "a" * 65, "{}"])
def test_a_request_id_of_another_form_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/capabilities", headers=[(b"X-Request-Id", given.encode())])
    assert answer.headers["x-request-id"] not in ("", given)
    assert len(answer.headers["x-request-id"]) == 16


def test_capabilities_are_the_backend_s_own_and_an_id_may_hold_what_paths_are_made_of(
    client: httpx.Client, tmp_path: Path
) -> None:
    with Memory("sqlite", path=tmp_path / "other.db", embedder="none") as memory:
        assert client.get("/capabilities").json() == memory.capabilities().to_wire()
    for id in ("a%2Fb", "%2E%2E", "%3Fx", "a%0Ab", "%25"):
        assert "provider" in error_of(client.get(f"/memories/{id}"), 404, "not_found"), id


@pytest.mark.promise(116)
def test_health_asks_the_backend(client: httpx.Client, serve: Serve) -> None:
    assert client.get("/healthz").json() == {"status": "ok", "provider": "sqlite"}
    _, app = scripted_app(ProviderUnavailableError("the backend is not there"))
    assert error_of(serve(app).get("/healthz"), 503, "provider_unavailable")["message"] == "the backend is not there"


def test_health_of_a_backend_that_hangs_is_answered_in_bounded_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openproto.server.routes.HEALTH_TIMEOUT", 0.2)
    provider, app = scripted_app()
    error_of(serve(app).get("/healthz"), 503, "provider_unavailable")
    assert provider.cancelled.is_set()


def test_the_time_of_a_retry_is_given_in_whole_seconds_and_exactly(serve: Serve) -> None:
    _, app = scripted_app(RateLimitedError("slowly", retry_after=1.25))
    answer = serve(app).get("/memories/x")
    assert error_of(answer, 429, "rate_limited")["x-openproto"] == {"retry_after": 1.25}
    assert answer.headers["retry-after"] == "2"
