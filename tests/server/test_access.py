"""Who may do what, and how often: keys and the users they are bound to, hosts, and web pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from pydantic import ValidationError
from server_tools import Serve, error_of, sqlite_app
from waiting import until

from openproto.server import ServerSettings
from openproto.server.keys import ApiKey, find_key, new_key, read_keys

ADA, ADAS = new_key("ada", ["ada"])
PAIR, PAIRS = new_key("pair", ["bob", "eve"])
ROOT, ROOTS = new_key("root", ["*"])
READER, READERS = new_key("reader", ["ada"], read_only=True)
LATE, LATES = new_key("late", ["ada"], expires=datetime.now(UTC) - timedelta(seconds=1))


@pytest.fixture
def guarded(serve_file: Serve) -> httpx.Client:
    return serve_file(keys=[ADAS, PAIRS, ROOTS, READERS, LATES])


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **headers}


Asked: TypeAlias = tuple[str, str, dict[str, Any]]
"""The method, the path, and the rest of a request."""


def ask(client: httpx.Client, asked: Asked, headers: dict[str, str], **more: Any) -> httpx.Response:
    method, path, options = asked
    return client.request(method, path, headers=headers, **options, **more)


def add(client: httpx.Client, user_id: str, content: str = "tea") -> str:
    item = {"content": content, "user_id": user_id}
    return str(client.post("/memories", json=item, headers=bearer(ROOT)).json()["id"])


def requests_of(user_id: str) -> list[Asked]:
    """One request to every route that names a user."""
    params = {"user_id": user_id}
    return [
        ("POST", "/memories", {"json": {"content": "tea", **params}}),
        ("PUT", "/memories", {"json": {"content": "tea", "key": "drink", **params}}),
        ("GET", "/memories", {"params": params}),
        ("GET", "/memories/search", {"params": {"q": "tea", **params}}),
        ("POST", "/memories/search", {"json": {"q": "tea", **params}}),
        ("POST", "/context", {"json": {"query": "tea", **params}}),
        ("GET", "/audit", {"params": params}),
        ("GET", "/scopes", {"params": params}),
        ("DELETE", "/memories", {"params": params}),
    ]


def requests_on(id: str) -> list[Asked]:
    """One request to every route that names a memory."""
    path = f"/memories/{id}"
    return [("GET", path, {}), ("PATCH", path, {"json": {"tags": ["t"]}}), ("DELETE", path, {})]


BATCH: Asked = ("POST", "/memories/batch", {"json": {"items": []}})
OF_ALL_USERS: list[Asked] = [("GET", "/users", {}), ("POST", "/memories/restore", {"json": {"records": []}})]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {ADA}"},
        {"Authorization": ADA},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ADA, "Authorization": f"Bearer {ROOT}"},
        {"X-API-Key": ADA, "Authorization": "Basic YTpi"},
        {"X-API-Key": ADAS.sha256},
        {"X-User-Id": "ada"},
        {"X-API-Key": LATE},
    ],
)
def test_without_a_good_key_every_route_is_unauthorized(guarded: httpx.Client, headers: dict[str, str]) -> None:
    id = add(guarded, "ada")
    for asked in [*requests_of("ada"), *requests_on(id), BATCH, *OF_ALL_USERS]:
        answer = ask(guarded, asked, headers)
        message = error_of(answer, 401, "unauthorized")["message"]
        assert ("expired" in message) == (LATE in headers.values())
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get(f"/memories/{id}", headers=bearer(ROOT)).status_code == 200
    for path in ("/capabilities", "/healthz", "/openapi.json"):  # what holds no memory needs no key
        assert guarded.get(path, headers=headers).status_code == 200


def test_a_key_that_may_only_read_writes_nothing(guarded: httpx.Client) -> None:
    id = add(guarded, "ada")
    for asked in [*requests_on(id), *requests_of("ada"), BATCH]:
        answer = ask(guarded, asked, bearer(READER))
        if asked[0] == "GET" or asked[1] in ("/memories/search", "/context"):
            assert answer.is_success, asked
        else:
            error_of(answer, 403, "scope_denied")
    assert [each["id"] for each in guarded.get("/memories", headers=bearer(ADA)).json()["items"]] == [id]


EVERYBODY = {"ada", "bob", "eve"}


@pytest.mark.parametrize(
    ("headers", "users"),
    [
        (bearer(ADA), {"ada"}),
        ({"X-API-Key": ADA}, {"ada"}),
        ({"authorization": f"bearer  {ADA}"}, {"ada"}),
        (bearer(ADA, **{"X-User-Id": "bob"}), set()),
        (bearer(PAIR), {"bob", "eve"}),
        (bearer(PAIR, **{"X-User-Id": "bob"}), {"bob"}),
        (bearer(ROOT), EVERYBODY),
        (bearer(ROOT, **{"X-User-Id": "ada"}), {"ada"}),
    ],
)
def test_a_key_reaches_its_users_alone(guarded: httpx.Client, headers: dict[str, str], users: set[str]) -> None:
    """Another user's memory is as if it were none, and another user is refused, whether or not there is one."""

    def refused(user_id: str) -> bool:
        errors = [error_of(ask(guarded, asked, headers), 403, "scope_denied") for asked in requests_of(user_id)]
        return all("may not act for that user" in error["message"] for error in errors)

    for user_id in EVERYBODY:
        assert user_id in users or refused(user_id)
        id = add(guarded, user_id, "secret")
        if user_id in users:
            assert all(ask(guarded, asked, headers).is_success for asked in [*requests_on(id), *requests_of(user_id)])
            continue
        assert refused(user_id)
        for params in ({}, {"user_id": user_id}):
            for pair in zip(requests_on(id), requests_on("no-such-id"), strict=True):
                one, other = (error_of(ask(guarded, each, headers, params=params), 404, "not_found") for each in pair)
                assert one | {"request_id": ""} == other | {"request_id": ""}
        assert guarded.get(f"/memories/{id}", headers=bearer(ROOT)).json()["content"] == "secret"
    items = [{"content": "tea", "user_id": user_id} for user_id in EVERYBODY]
    batch = guarded.post("/memories/batch", json={"items": items}, headers=headers).json()
    assert [each["status"] == 201 for each in batch["outcomes"]] == [user_id in users for user_id in EVERYBODY]
    for asked in OF_ALL_USERS:
        assert ask(guarded, asked, headers).status_code == (200 if users == EVERYBODY else 403)


def test_a_key_of_one_user_need_not_name_the_user(guarded: httpx.Client) -> None:
    one, as_eve = bearer(ADA), bearer(PAIR, **{"X-User-Id": "eve"})
    for method, path, options in requests_of("ada"):
        nobody = {how: {name: fields[name] for name in fields if name != "user_id"} for how, fields in options.items()}
        for key in (one, as_eve):
            assert ask(guarded, (method, path, nobody), key).is_success, path
        error_of(ask(guarded, (method, path, nobody), bearer(PAIR)), 400, "invalid_request")
    for key, user_id in ((one, "ada"), (as_eve, "eve")):
        made = guarded.post("/memories/batch", json={"items": [{"content": "tea"}]}, headers=key).json()["outcomes"]
        assert made[0]["memory"]["user_id"] == user_id


def test_only_hashes_of_keys_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, written = tmp_path / "keys.json", json.dumps([ADAS.model_dump()])
    file.write_text(written)
    assert ADA not in written
    assert len(ADA) >= 40
    assert find_key(read_keys(file), ADA.encode()) == ADAS
    assert find_key(read_keys(file), ADAS.sha256.encode()) is None
    settings = ServerSettings(keys_file=file)
    assert settings.keys == [ADAS]
    assert ADA not in repr(settings)
    monkeypatch.setenv("OPENPROTO_SERVER_KEYS", written)
    assert ServerSettings().keys == [ADAS]


async def test_a_worker_that_starts_beside_a_broken_file_knows_no_key(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([ADAS.model_dump()]))
    settings = ServerSettings(keys_file=file)
    file.write_text("[")  # by now the key may have been revoked
    client = serve(sqlite_app(tmp_path / "memory.db", settings), settings)
    listed = ("GET", "/memories", {"params": {"user_id": "ada"}})
    assert ask(client, listed, bearer(ADA)).status_code == 401
    file.write_text(json.dumps([ADAS.model_dump()]))
    await until(lambda: ask(client, listed, bearer(ADA)).status_code == 200)


@pytest.mark.parametrize("broken", ["{", "{}", "[1]", '[{"name": "n", "sha256": "secret", "users": "*"}]', "[]"])
def test_a_broken_or_empty_file_of_keys_is_named_without_what_it_holds(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(broken)
    with pytest.raises(ValidationError, match="holds no keys" if broken == "[]" else "keys.json") as caught:
        ServerSettings(keys_file=file)
    (fault,) = caught.value.errors()
    assert str(file) in fault["msg"]
    assert "secret" not in fault["msg"]


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("host", ["0.0.0.0", "::", "192.168.1.1", "example.com"], "allow_unauthenticated"),
        ("cors_origins", [["app.example"], ["https://a.example/"], ["null"], [""]], "must be a scheme and a host"),
        (
            "allowed_hosts",
            [["https://m.example"], ["m.example:80"], ["m.example/"], ["*"], ["::1"]],
            "must be a name or an address",
        ),
    ],
)
def test_settings_that_expose_memories_or_match_nothing_are_refused(name: str, values: list[Any], says: str) -> None:
    for value in values:
        with pytest.raises(ValidationError, match=says):
            ServerSettings(**{name: value})
        if name == "host":
            ServerSettings(host=value, allow_unauthenticated=True)
            ServerSettings(host=value, keys=[ApiKey(name="n", sha256="0" * 64, users="*")])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_a_loopback_address_is_served_without_keys_under_its_own_name(host: str) -> None:
    name = f"[{host}]" if ":" in host else host
    assert {name, "localhost"} <= ServerSettings(host=host).hosts


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "http://[::1", "", "//"]),
        ("Host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""]),
    ],
    ids=["a page of another origin", "a name that was made to resolve to this machine"],
)
def test_web_pages_are_kept_away(client: httpx.Client, name: str, values: list[str]) -> None:
    for value in values:
        answer = client.post("/memories", json={"content": "tea", "user_id": "ada"}, headers={name: value})
        error_of(answer, 403, "scope_denied")
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/memories", params={"user_id": "ada"}).json()["items"] == []


def test_hosts_and_origins_are_allowed_by_name_in_any_case(serve_file: Serve) -> None:
    client = serve_file(allowed_hosts=["Memory.Example"], cors_origins=["https://App.Example"])
    answer = client.get("/healthz", headers={"Host": "memory.example:443", "Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    error_of(client.get("/healthz"), 403, "scope_denied")


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "X-User-Id", "X-OMP-App"])
def test_a_header_given_twice_is_refused(guarded: httpx.Client, name: str) -> None:
    value = f"Bearer {ADA}" if name == "Authorization" else ADA
    headers = [("X-API-Key", ADA), (name, value), (name, value)]
    error_of(guarded.get("/memories", params={"user_id": "ada"}, headers=headers), 400, "invalid_request")


def test_a_listed_origin_may_call_and_read_what_it_needs_even_of_errors(serve_file: Serve) -> None:
    client = serve_file(cors_origins=["https://app.example"], keys=[ADAS])
    page = {"Origin": "https://app.example"}
    wanted = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization, if-match"}
    preflight = client.options("/memories/x", headers={**page, **wanted})
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["omp-version"] == "0.1"
    odd = client.options("/memories/x", headers={**page, "Access-Control-Request-Method": "BREW"})
    assert (odd.status_code, odd.text) == (200, "")
    assert "BREW" not in odd.headers["access-control-allow-methods"]
    answer = client.get("/memories/x", headers={**page, **bearer(ADA)})
    error_of(answer, 404, "not_found")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "etag" in answer.headers["access-control-expose-headers"].lower()
    error_of(client.options("/memories/x", headers={"Origin": "http://evil.example", **wanted}), 403, "scope_denied")


def test_each_key_or_address_has_a_rate_that_its_answer_names(serve_file: Serve) -> None:
    other, entry = new_key("ada", ["eve"])  # of the same name
    client = serve_file(keys=[ADAS, entry], rate_limit="3/hour")
    assert [client.get("/memories/x", headers=bearer(ADA)).status_code for _ in range(4)] == [404, 404, 404, 429]
    refused = client.get("/memories/x", headers=bearer(ADA))
    error = error_of(refused, 429, "rate_limited")
    assert 3000 < error["x-openproto"]["retry_after"] <= int(refused.headers["retry-after"]) <= 3600
    assert client.get("/memories/x", headers=bearer(other)).status_code == 404
    assert client.get("/healthz").status_code == 200
    open_ = serve_file(rate_limit="2 per hour")
    assert [open_.get("/memories/x").status_code for _ in range(3)] == [404, 404, 429]
