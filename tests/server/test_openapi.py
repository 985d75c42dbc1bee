"""The OpenAPI document is true, and a client that knows the published protocol alone is served."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from schemathesis_run import schemathesis
from server_tools import Serve, sqlite_app

from openproto.errors import ERROR_CODES, OpenProtoError, ProviderError
from openproto.server import ServerSettings
from openproto.server.keys import new_key

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


def test_generated_requests_find_no_answer_that_is_not_declared() -> None:
    run = schemathesis(3, with_keys=True)
    assert run.ok, run.output
    assert run.cases > 100


def test_every_route_is_declared_with_its_errors(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert {path: set(operations) for path, operations in document["paths"].items()} == ROUTES
    backend = {str(_status(code)) for code in ERROR_CODES} - {"401", "404", "409", "413", "429"}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert backend <= set(operation["responses"]), (method, path)
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Envelope"}


def test_a_key_is_declared_where_one_is_needed_and_only_there(serve: Serve, tmp_path: Path) -> None:
    def security(settings: ServerSettings) -> dict[str, Any]:
        document = serve(sqlite_app(tmp_path / "memory.db", settings)).get("/openapi.json").json()
        return {
            path: operation.get("security")
            for path, operations in document["paths"].items()
            for operation in operations.values()
        }

    assert set(map(str, security(ServerSettings()).values())) == {"None"}
    declared = security(ServerSettings(keys=[new_key("n", ["*"])[1]]))
    open_ = {path for path, wanted in declared.items() if wanted is None}
    assert open_ == {"/capabilities", "/healthz"}


def test_every_reference_leads_somewhere(client: httpx.Client) -> None:
    text = client.get("/openapi.json").text
    known = set(client.get("/openapi.json").json()["components"]["schemas"])
    assert set(re.findall(r"#/components/schemas/([\w-]+)", text)) <= known
    assert "ValidationError" not in text


def _status(code: str) -> int:
    kinds = [kind for kind in (*OpenProtoError.__subclasses__(), *ProviderError.__subclasses__()) if kind.code == code]
    return kinds[0]("").http_status


def body(response: httpx.Response, status: int = 200) -> Any:
    assert response.status_code == status, response.text
    return response.json()


def test_a_client_that_knows_only_the_published_api_gets_through_a_memory_s_whole_life(client: httpx.Client) -> None:
    memory = {
        "content": "User prefers TypeScript",
        "user_id": "ada",
        "scope": "coding/preferences",
        "tags": ["language"],
        "source": {"app": "editor", "type": "explicit"},
        "confidence": 0.95,
    }
    record = body(client.post("/memories", json=memory), 201)
    assert memory.items() <= record.items()
    assert datetime.fromisoformat(record["created_at"]).utcoffset() is not None
    assert body(client.get(f"/memories/{record['id']}")) == record
    listed = body(client.get("/memories", params={"user_id": "ada", "limit": 10}))
    assert (listed["items"], listed.get("next_cursor")) == ([record], None)
    (hit,) = body(client.get("/memories/search", params={"q": "typescript", "user_id": "ada", "limit": 5}))["results"]
    assert hit["memory"] == record
    assert 0 < hit["score"] <= 1
    context = body(client.post("/context", json={"query": "typescript", "user_id": "ada", "token_budget": 100}))
    assert record["content"] in context["text"]
    assert context["citations"] == [{"memory_id": record["id"], "score": hit["score"]}]
    assert 0 < context["token_count"] <= 100
    changes = {"content": "User prefers Python", "confidence": None}
    changed = body(client.patch(f"/memories/{record['id']}", json=changes))
    assert (changed["content"], "confidence" in changed) == ("User prefers Python", False)
    entries = body(client.get("/audit", params={"user_id": "ada"}))["entries"]
    assert [entry["action"] for entry in entries][:2] == ["update", "context"]
    gone = client.delete(f"/memories/{record['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    error = body(client.get(f"/memories/{record['id']}"), 404)["error"]
    assert (error["code"], error["type"], bool(error["message"])) == ("not_found", "not_found", True)


def test_capabilities_name_version_and_verbs_and_no_path_has_a_version_prefix(client: httpx.Client) -> None:
    answer = client.get("/capabilities")
    assert (answer.json()["omp_version"], answer.headers["omp-version"]) == ("0.1", "0.1")
    assert {"add", "search", "context", "get", "list", "update", "delete", "audit"} <= set(answer.json()["verbs"])
    assert client.get("/v1/memories", params={"user_id": "ada"}).status_code == 404
    assert all(path.startswith(("/memories", "/context", "/audit", "/capabilities", "/healthz", "/scopes", "/users"))
               for path in client.get("/openapi.json").json()["paths"])  # fmt: skip
