"""Whatever goes wrong is the envelope, under the right status, with a request id, and gives nothing away."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_tools import Serve, connect, error_of, read_all, scripted_app

from openproto import errors
from openproto.errors import ERROR_CODES, OpenProtoError

MARKER = "xyzzy-plugh-0421"
MEMORY = {"content": MARKER, "user_id": "ada"}
JSON = {"Content-Type": "application/json"}
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, OpenProtoError) and kind is not OpenProtoError
]


def nothing_is_stored(client: httpx.Client) -> bool:
    return bool(client.get("/memories", params={"user_id": "ada"}).json()["items"] == [])


def test_an_error_of_the_backend_keeps_its_code_type_status_and_message(serve: Serve) -> None:
    assert {kind.code for kind in KINDS} == set(ERROR_CODES)
    provider, app = scripted_app()
    client = serve(app)
    for kind in KINDS:
        provider.error = kind("in so many words")
        error = error_of(client.get("/memories/x"), kind("").http_status, kind.code)
        assert (error["message"], error["type"], error["provider"]) == ("in so many words", kind("").type, "scripted")
    provider.error = errors.ProviderError.unknown("quota_exhausted", "no more")  # of a newer backend
    error_of(client.get("/memories/x"), 502, "quota_exhausted")
    provider.error = errors.RateLimitedError("slowly", retry_after=1.25)  # told exactly, and in whole seconds
    answer = client.get("/memories/x")
    assert error_of(answer, 429, "rate_limited")["x-openproto"] == {"retry_after": 1.25}
    assert answer.headers["retry-after"] == "2"


def test_a_fault_inside_the_server_is_logged_without_its_words(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    _, app = scripted_app(KeyError(MARKER))
    with caplog.at_level(logging.DEBUG):
        answer = serve(app).get("/memories/x")
    error_of(answer, 500, "internal_error")
    assert MARKER not in answer.text + caplog.text
    assert "Traceback" not in answer.text
    assert "KeyError" in caplog.text
    assert answer.headers["x-request-id"] in caplog.text


@pytest.mark.parametrize(
    "path",
    ["/", "/memory", "/memories/", "/v0/memories", "/openapi.json/", f"/{MARKER}", "//", "/healthz%0A", "/memories%0A"],
)
def test_an_unknown_route_is_not_found(client: httpx.Client, path: str) -> None:
    assert MARKER not in error_of(client.get(path), 404, "not_found")["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/memories", "DELETE, GET, POST, PUT"),
        ("DELETE", "/memories/search", "GET, POST"),
        ("POST", "/openapi.json", "GET"),
        ("OPTIONS", "/memories", "DELETE, GET, POST, PUT"),
    ],
)
def test_a_wrong_method_is_named(client: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    error_of(answer, 405, "invalid_request")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/memories", "/memories/batch", "/memories/search", "/context"])
def test_a_body_that_is_not_a_json_object_is_refused(client: httpx.Client, path: str) -> None:
    for body in (
        *(b"", b"{", b"{'a': 1}", b"[]", b"null", b'"text"', b"\xff\xfe"),
        b'{"content": "\\ud800", "user_id": "ada"}',
        b'{"content": "a", "user_id": "ada", "x-a": NaN}',
        b"[" * 100_000,
        b'{"x-a":' * 5_000,
    ):
        error_of(client.post(path, content=body, headers=JSON), 400, "invalid_request")


def test_a_body_must_be_declared_as_json(client: httpx.Client) -> None:
    body = json.dumps(MEMORY)
    for wrong in (None, "text/plain", "application/x-www-form-urlencoded", "json", "text/json"):
        headers = {"Content-Type": wrong} if wrong else {}
        error_of(client.post("/memories", content=body, headers=headers), 415, "invalid_request")
    for right in ("application/json; charset=utf-8", "Application/JSON", "application/ld+json"):
        assert client.post("/memories", content=body, headers={"Content-Type": right}).status_code == 201


def test_a_bad_memory_is_refused_without_its_words(client: httpx.Client) -> None:
    """Every rule of the values is tried in tests/core; here are those of JSON."""
    bad: list[dict[str, Any]] = [{"valid_from": 17040672}, {"confidence": "0.5"}, {"unknown": 1}, {"tags": [MARKER, 5]}]
    for fields in (*bad, {"content": f"{MARKER}\0"}, {"content": None}, {"confidence": True}, {"source": ["ada"]}):
        error = error_of(client.post("/memories", json={**MEMORY, **fields}), 400, "invalid_request")
        assert MARKER not in error["message"]
    assert nothing_is_stored(client)


@pytest.mark.parametrize(
    "path",
    [
        "/memories",
        *(f"/memories?user_id={user}" for user in ("", "%00", "%FF", "%ED%A0%80", "ada&user_id=eve", "ada&unknown=1")),
        *(f"/memories?user_id=ada&limit={limit}" for limit in ("5.0", "1_0", "%205", "true")),
        *(f"/memories?user_id=ada&since={since}" for since in ("2024-01-01", "2024-01-01T00:00:00", "0")),
        "/memories?user_id=ada&cursor=bad",
        *(f"/memories/search?user_id=ada{rest}" for rest in ("", "&q=", "&query=tea", "&q=tea&min_score=nan")),
        *(f"/memories/{rest}" for rest in ("some-id?user_id=", "some-id?user=ada", "%00")),
        *(f"/audit?user_id=ada&{rest}" for rest in ("limit=1001", "app=")),
    ],
)
def test_a_bad_query_string_is_refused(client: httpx.Client, path: str) -> None:
    error_of(client.get(path), 400, "invalid_request")


@pytest.mark.parametrize("header", ["Idempotency-Key", "X-User-Id", "X-OMP-App"])
def test_a_bad_header_is_refused(client: httpx.Client, header: str) -> None:
    for value in (b"", b"\xff", b"h" * 257):
        error_of(client.post("/memories", json=MEMORY, headers=[(header.encode(), value)]), 400, "invalid_request")
    assert nothing_is_stored(client)


def test_a_body_that_is_too_large_is_refused_before_all_of_it_arrives(client: httpx.Client) -> None:
    head = b"POST /memories HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with connect(client.base_url, head + b"Content-Length: 1048577\r\nConnection: close\r\n\r\n") as connection:
        status_line, _, rest = read_all(connection).partition(b"\r\n")
    assert b" 413 " in status_line
    assert json.loads(rest.partition(b"\r\n\r\n")[2])["error"]["code"] == "payload_too_large"
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with connect(client.base_url, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 17) as connection:  # no end
        assert b" 413 " in connection.recv(4096).partition(b"\r\n")[0]


def test_a_problem_document_is_sent_to_those_who_ask_for_one(client: httpx.Client) -> None:
    answer = client.get("/memories/no-such-id", headers={"Accept": "application/problem+json, */*;q=0.1"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": answer.status_code,
        "detail": "no such memory",
        "code": "not_found",
        "provider": "sqlite",
        "request_id": answer.headers["x-request-id"],
    }


def test_no_secret_of_the_backend_shows_when_it_fails(serve_file: Serve, tmp_path: Path) -> None:
    client = serve_file()
    client.post("/memories", json=MEMORY)
    for file in tmp_path.iterdir():
        file.write_bytes(b"rubbish" * 1000)
    answer = client.get("/memories", params={"user_id": "ada"})
    error_of(answer, 502, "provider_error")
    assert str(tmp_path) not in answer.text
    assert MARKER not in answer.text


@pytest.mark.parametrize(
    "rubbish",
    [
        b"rubbish\r\n\r\n",
        b"BREW /audit HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /memories/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_not_http_at_all_gets_the_envelope_too(client: httpx.Client, rubbish: bytes) -> None:
    with connect(client.base_url, rubbish) as connection:
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    error = json.loads(body)["error"]
    assert error["code"] == "invalid_request"
    assert f"x-request-id: {error['request_id']}".encode() in head


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_a_request_that_offers_another_protocol_keeps_its_body(client: httpx.Client, offer: str) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": offer, "HTTP2-Settings": "AAMAAABk"}
    assert client.post("/memories", json=MEMORY, headers=headers).status_code == 201
    large = {**MEMORY, "content": "tea " * 20_000}
    chunks = iter([json.dumps(large).encode()[start : start + 7000] for start in range(0, 90_000, 7000)])
    assert client.post("/memories", content=chunks, headers={**headers, **JSON}).status_code == 201
    assert client.get("/healthz", headers=headers).status_code == 200
