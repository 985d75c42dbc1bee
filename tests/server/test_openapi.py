"""The OpenAPI document is true."""

from __future__ import annotations

import re

import httpx
from schemathesis_run import schemathesis
from server_tools import Serve

from openproto.errors import ERROR_CODES, OpenProtoError, ProviderError
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
