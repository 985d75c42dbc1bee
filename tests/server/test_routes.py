"""What the binding alone has: batches, two forms of a search, health, versions, an OpenAPI document, and pages."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from schemathesis_run import schemathesis
from server_tools import LONG, Serve, error_of, scripted_app
from waiting import until

from openproto import Memory
from openproto.errors import ERROR_CODES, OpenProtoError, ProviderError, ProviderUnavailableError
from openproto.server.keys import new_key

ITEM = {"content": "green tea", "user_id": "ada", "key": "drink"}


def add(client: httpx.Client, content: str = "tea", **fields: Any) -> dict[str, Any]:
    made = client.post("/memories", json={"content": content, "user_id": "ada", **fields})
    assert made.status_code == 201, made.text
    return dict(made.json())


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
    assert len(client.get("/capabilities", headers=[(b"X-Request-Id", given.encode())]).headers["x-request-id"]) == 16


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


@pytest.mark.parametrize(("field", "value"), [("created_at", "yesterday"), ("confidence", True), ("confidence", "0.5")])
def test_what_is_wrong_with_a_record_to_restore_is_named_by_its_place(
    client: httpx.Client, field: str, value: object
) -> None:
    record = client.put("/memories", json=ITEM).json()
    broken = {"records": [record, {**record, field: value}]}
    message = error_of(client.post("/memories/restore", json=broken), 400, "invalid_request")["message"]
    assert f"records.1.{field}" in message


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


POLICY = {
    *(f"{kind} 'none'" for kind in ("default-src", "base-uri", "form-action", "frame-ancestors")),
    *(f"{kind} 'self'" for kind in ("script-src", "style-src", "connect-src")),
    "img-src 'self' data:",
}
PAGE = files("openproto.server.inspector").joinpath("page")
FOREIGN = re.compile(
    r"""<script(?! type="module" src=)|<style|\sstyle=|\son\w+=|innerHTML|insertAdjacentHTML|document\.write|\beval\("""
    r"|localStorage|sessionStorage|document\.cookie|https?://(?!www\.w3)"
)
"""What a page under this policy does without: markup made of text, places that outlive the tab, other hosts."""


def test_the_inspector_is_served_only_where_it_is_wanted(client: httpx.Client, serve_file: Serve) -> None:
    for path in ("/", "/ui", "/ui/app.js", "/ui/status"):
        error_of(client.get(path), 404, "not_found")
    shown = serve_file(ui=True)
    assert (shown.get("/").status_code, shown.get("/").headers["location"]) == (307, "ui")
    assert 'data-login="no"' in shown.get("/ui").text
    error_of(shown.get("/ui/nothing.js"), 404, "not_found")
    assert set(shown.get("/openapi.json").json()["paths"]) == set(client.get("/openapi.json").json()["paths"])


def test_every_file_comes_under_the_policy_and_needs_nothing_from_elsewhere(serve_file: Serve) -> None:
    server = serve_file(ui=True)
    names = [entry.name for entry in PAGE.iterdir() if not entry.name.endswith(".html")]
    for path in ("/ui", "/docs", *(f"/ui/{name}" for name in names), "/docs/docs.js", "/docs/base.css"):
        answer = server.get(path)
        assert answer.status_code == 200, path
        assert {*answer.headers["content-security-policy"].split("; ")} == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not FOREIGN.search(answer.text)
        again = server.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert sum(len(entry.read_bytes()) for entry in PAGE.iterdir()) <= 150_000


def test_a_key_is_shown_what_it_may_and_only_one_of_all_users_the_figures(serve_file: Serve) -> None:
    made = [new_key("one", ["ada"], read_only=True), new_key("all", ["*"])]
    server = serve_file(ui=True, keys=[entry for _, entry in made])
    assert 'data-login="yes"' in server.get("/ui").text
    error_of(server.get("/ui/status"), 401, "unauthorized")
    one, all_ = (server.get("/ui/status", headers={"X-API-Key": key}).json() for key, _ in made)
    assert one == {"key": {"users": ["ada"], "read_only": True}}
    assert all_["key"] == {"users": None, "read_only": False}
    assert {"calls", "in_flight", "cancelled", "verbs"} <= set(all_["figures"])


@pytest.mark.parametrize("browsers", ["one", "unwanted", "none"])
def test_the_command_prints_the_address_opens_a_browser_and_ends_in_order(tmp_path: Path, browsers: str) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part; /bin/mv {opened}.part {opened}\n')
    browser.chmod(0o700)
    command = [sys.executable, "-W", "error", "-m", "openproto.cli", "ui", "--json", "--option", "embedder=none"]
    with subprocess.Popen(
        [*command, "--path", str(tmp_path / "memory.db"), *(["--no-browser"] if browsers == "unwanted" else [])],
        env={**os.environ, "PATH": str(tmp_path), "BROWSER": "" if browsers == "none" else f"{browser} %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout
            page = json.loads(started.stdout.readline())["url"]
            assert httpx.get(page, timeout=LONG).headers["content-type"].startswith("text/html")
            if browsers == "one":
                asyncio.run(until(opened.exists, LONG))
                assert opened.read_text() == page
        finally:
            started.send_signal(signal.SIGINT)
            _, said = started.communicate(timeout=LONG)
    assert (started.returncode, said, opened.exists()) == (0, "", browsers == "one")
