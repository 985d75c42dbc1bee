"""The OpenAPI document is true: what it declares is what happens."""

from __future__ import annotations

import re
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
