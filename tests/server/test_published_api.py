"""A client written from the published API of the Open Memory Protocol 0.1 alone: plain HTTP, nothing of openproto."""

from __future__ import annotations

from datetime import datetime

import httpx


def test_a_client_that_knows_only_the_published_api_gets_through_a_memory_s_whole_life(client: httpx.Client) -> None:
    made = client.post(
        "/memories",
        json={
            "content": "User prefers TypeScript",
            "user_id": "ada",
            "scope": "coding/preferences",
            "tags": ["language"],
            "source": {"app": "editor", "type": "explicit"},
            "confidence": 0.95,
        },
    )
    assert made.status_code == 201
    record = made.json()
    assert record["content"] == "User prefers TypeScript"
    assert datetime.fromisoformat(record["created_at"]).utcoffset() is not None

    read = client.get(f"/memories/{record['id']}")
    assert (read.status_code, read.json()) == (200, record)

    listed = client.get("/memories", params={"user_id": "ada", "limit": 10})
    assert listed.status_code == 200
    assert listed.json()["items"] == [record]
    assert listed.json().get("next_cursor") is None

    found = client.get("/memories/search", params={"q": "typescript", "user_id": "ada", "limit": 5})
    assert found.status_code == 200
    (hit,) = found.json()["results"]
    assert hit["memory"] == record
    assert 0 < hit["score"] <= 1

    context = client.post("/context", json={"query": "typescript", "user_id": "ada", "token_budget": 100})
    assert context.status_code == 200
    block = context.json()
    assert record["content"] in block["text"]
    assert block["citations"] == [{"memory_id": record["id"], "score": hit["score"]}]
    assert 0 < block["token_count"] <= 100

    changed = client.patch(f"/memories/{record['id']}", json={"content": "User prefers Python", "confidence": None})
    assert changed.status_code == 200
    assert changed.json()["content"] == "User prefers Python"
    assert "confidence" not in changed.json()

    audit = client.get("/audit", params={"user_id": "ada"})
    assert audit.status_code == 200
    assert [entry["action"] for entry in audit.json()["entries"]][:2] == ["update", "context"]

    gone = client.delete(f"/memories/{record['id']}")
    assert (gone.status_code, gone.content) == (204, b"")

    missing = client.get(f"/memories/{record['id']}")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "not_found"
    assert missing.json()["error"]["type"] == "not_found"
    assert missing.json()["error"]["message"]


def test_capabilities_name_version_and_verbs_and_no_path_has_a_version_prefix(client: httpx.Client) -> None:
    answer = client.get("/capabilities")
    assert (answer.json()["omp_version"], answer.headers["omp-version"]) == ("0.1", "0.1")
    assert {"add", "search", "context", "get", "list", "update", "delete", "audit"} <= set(answer.json()["verbs"])
    assert client.get("/v1/memories", params={"user_id": "ada"}).status_code == 404
    assert all(path.startswith(("/memories", "/context", "/audit", "/capabilities", "/healthz", "/scopes", "/users"))
               for path in client.get("/openapi.json").json()["paths"])  # fmt: skip
