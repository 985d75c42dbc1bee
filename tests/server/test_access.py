"""Who may do what, and how often: keys and the users they are bound to, hosts, and web pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from server_tools import Serve, error_of, sqlite_app

from openproto.server import ServerSettings
from openproto.server.keys import ApiKey, find_key, new_key, read_keys

ADA, ADAS = new_key("ada", ["ada"])
PAIR, PAIRS = new_key("pair", ["bob", "eve"])
ROOT, ROOTS = new_key("root", ["*"])
KEYS = ServerSettings(keys=[ADAS, PAIRS, ROOTS])


@pytest.fixture
def guarded(serve: Serve, tmp_path: Path) -> httpx.Client:
    """A server that wants keys; the client has none."""
    return serve(sqlite_app(tmp_path / "memory.db", KEYS))


def bearer(key: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}", **headers}


def add(client: httpx.Client, user_id: str, content: str = "tea") -> str:
    made = client.post("/memories", json={"content": content, "user_id": user_id}, headers=bearer(ROOT))
    found: str = made.json()["id"]
    return found


def every_request(id: str, user_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """One request to every route that needs a key."""
    params = {"user_id": user_id}
    return [
        ("POST", "/memories", {"json": {"content": "tea", **params}}),
        ("POST", "/memories/batch", {"json": {"items": []}}),
        ("GET", "/memories", {"params": params}),
        ("GET", "/memories/search", {"params": {"q": "tea", **params}}),
        ("POST", "/memories/search", {"json": {"q": "tea", **params}}),
        ("POST", "/context", {"json": {"query": "tea", **params}}),
        ("GET", "/audit", {"params": params}),
        ("GET", f"/memories/{id}", {}),
        ("PATCH", f"/memories/{id}", {"json": {"tags": ["t"]}}),
        ("DELETE", f"/memories/{id}", {}),
        ("DELETE", "/memories", {"params": params}),
    ]


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
    ],
)
def test_without_a_good_key_every_route_is_unauthorized(guarded: httpx.Client, headers: dict[str, str]) -> None:
    id = add(guarded, "ada")
    for method, path, options in every_request(id, "ada"):
        answer = guarded.request(method, path, headers=headers, **options)
        error_of(answer, 401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in (f"/memories/{id}", "/capabilities", "/healthz", "/openapi.json"):
        named = bearer(ROOT) if id in path else headers  # what holds no memory needs no key
        assert guarded.get(path, headers=named).status_code == 200


def test_a_good_key_opens_every_route_in_either_header(guarded: httpx.Client) -> None:
    for headers in (bearer(ADA), {"X-API-Key": ADA}, {"authorization": f"bearer  {ADA}"}):
        for method, path, options in every_request(add(guarded, "ada"), "ada"):
            assert guarded.request(method, path, headers=headers, **options).is_success, (method, path)


def test_another_user_s_record_and_none_at_all_are_the_same_not_found(guarded: httpx.Client) -> None:
    theirs = add(guarded, "bob", "secret")
    for key in (bearer(ADA), bearer(ROOT, **{"X-User-Id": "ada"})):
        for params in ({}, {"user_id": "bob"}):
            for method, options in (("GET", {}), ("PATCH", {"json": {"content": "mine"}}), ("DELETE", {})):
                answers = [
                    guarded.request(method, f"/memories/{id}", params=params, headers=key, **options)  # type: ignore[arg-type]
                    for id in (theirs, "no-such-id")
                ]
                errors = [error_of(answer, 404, "not_found") for answer in answers]
                for error in errors:
                    del error["request_id"]
                assert errors[0] == errors[1]
    body = {"content": "mine", "user_id": "ada", "supersedes": [theirs]}
    error_of(guarded.post("/memories", json=body, headers=bearer(ADA)), 404, "not_found")
    assert "superseded_by" not in guarded.get(f"/memories/{theirs}", headers=bearer(ROOT)).json()
    assert guarded.get(f"/memories/{theirs}", headers=bearer(ROOT)).json()["content"] == "secret"


@pytest.mark.parametrize("exists", [True, False])
def test_a_user_whom_the_key_may_not_act_for_is_denied_whether_or_not_there_is_one(
    guarded: httpx.Client, exists: bool
) -> None:
    if exists:
        add(guarded, "bob")
    for method, path, options in every_request("unused", "bob"):
        if "unused" in path or path == "/memories/batch":
            continue
        answer = guarded.request(method, path, headers=bearer(ADA), **options)
        assert "may not act for that user" in error_of(answer, 403, "scope_denied")["message"]
    items = [{"content": "tea", "user_id": "bob"}, {"content": "tea", "user_id": "ada"}]
    outcomes = guarded.post("/memories/batch", json={"items": items}, headers=bearer(ADA)).json()["outcomes"]
    assert [each["status"] for each in outcomes] == [403, 201]
    stored = guarded.get("/memories", params={"user_id": "bob"}, headers=bearer(ROOT)).json()["items"]
    assert len(stored) == exists


@pytest.mark.parametrize(
    ("key", "as_user", "allowed"),
    [(PAIR, None, {"bob", "eve"}), (PAIR, "bob", {"bob"}), (ADA, "bob", set()), (ROOT, "ada", {"ada"})],
    ids=["of two users", "narrowed", "never widened", "root narrowed"],
)
def test_a_key_reaches_its_users_and_x_user_id_narrows_it(
    guarded: httpx.Client, key: str, as_user: str | None, allowed: set[str]
) -> None:
    headers = bearer(key, **({"X-User-Id": as_user} if as_user else {}))
    for user_id in ("bob", "eve", "ada"):
        path = f"/memories/{add(guarded, user_id)}"
        ok = user_id in allowed
        assert guarded.get(path, headers=headers).status_code == (200 if ok else 404)
        as_another = {"user_id": "eve" if user_id == "bob" else "bob"}
        assert guarded.get(path, params=as_another, headers=headers).status_code == 404
        assert guarded.patch(path, json={"tags": ["t"]}, headers=headers).status_code == (200 if ok else 404)
        assert guarded.delete(path, headers=headers).status_code == (204 if ok else 404)
        listed = guarded.get("/memories", params={"user_id": user_id}, headers=headers)
        assert listed.status_code == (200 if ok else 403)


def test_only_hashes_of_keys_are_kept(tmp_path: Path) -> None:
    key, entry = new_key("laptop", ["ada"])
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([entry.model_dump()]))
    assert key not in file.read_text()
    assert len(key) >= 40
    assert find_key(read_keys(file), key.encode()) == entry
    assert find_key(read_keys(file), entry.sha256.encode()) is None
    settings = ServerSettings(keys_file=file)
    assert settings.keys == [entry]
    assert key not in repr(settings)


def test_keys_come_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENPROTO_SERVER_KEYS", json.dumps([ADAS.model_dump()]))
    assert ServerSettings().keys == [ADAS]


@pytest.mark.parametrize("broken", ["{", "{}", "[1]", '[{"name": "n", "sha256": "secret", "users": "*"}]', "[]"])
def test_a_broken_or_empty_file_of_keys_is_named_without_what_it_holds(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(broken)
    with pytest.raises(ValidationError, match="holds no keys" if broken == "[]" else "keys.json") as caught:
        ServerSettings(keys_file=file)
    (fault,) = caught.value.errors()
    assert str(file) in fault["msg"]
    assert "secret" not in fault["msg"]


NO_ORIGIN, NO_HOST = "must be a scheme and a host", "must be a name or an address"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        *(({"host": host}, "allow_unauthenticated") for host in ("0.0.0.0", "::", "192.168.1.1", "example.com")),
        *(({"cors_origins": [f"{one}"]}, NO_ORIGIN) for one in ("app.example", "https://a.example/", "null", "")),
        *(
            ({"allowed_hosts": [one]}, NO_HOST)
            for one in ("https://m.example", "m.example:80", "m.example/", "*", "::1")
        ),
    ],
)
def test_settings_that_would_expose_memories_or_match_nothing_are_a_mistake(settings: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServerSettings(**settings)
    if says == "allow_unauthenticated":
        ServerSettings(**settings, allow_unauthenticated=True)
        ServerSettings(**settings, keys=[ApiKey(name="n", sha256="0" * 64, users="*")])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_a_loopback_address_is_served_without_keys_under_its_own_name(host: str) -> None:
    name = f"[{host}]" if ":" in host else host
    assert {name, "localhost"} <= ServerSettings(host=host).hosts


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "http://[::1", "", "//"]
)
def test_a_page_of_another_origin_is_refused(client: httpx.Client, origin: str) -> None:
    answer = client.post("/memories", json={"content": "tea", "user_id": "ada"}, headers={"Origin": origin})
    error_of(answer, 403, "scope_denied")
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.get("/memories", params={"user_id": "ada"}).json()["items"] == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_a_name_that_was_made_to_resolve_to_this_machine_is_refused(client: httpx.Client, host: str) -> None:
    error_of(client.get("/memories", params={"user_id": "ada"}, headers={"Host": host}), 403, "scope_denied")


def test_hosts_and_origins_are_allowed_by_name_in_any_case(serve: Serve, tmp_path: Path) -> None:
    settings = ServerSettings(allowed_hosts=["Memory.Example"], cors_origins=["https://App.Example"])
    client = serve(sqlite_app(tmp_path / "memory.db", settings))
    answer = client.get("/healthz", headers={"Host": "memory.example:443", "Origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    error_of(client.get("/healthz"), 403, "scope_denied")


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "X-User-Id", "X-OMP-App"])
def test_a_header_given_twice_is_refused(guarded: httpx.Client, name: str) -> None:
    value = f"Bearer {ADA}" if name == "Authorization" else ADA
    headers = [("X-API-Key", ADA), (name, value), (name, value)]
    error_of(guarded.get("/memories", params={"user_id": "ada"}, headers=headers), 400, "invalid_request")


def test_a_listed_origin_may_call_and_read_what_it_needs_even_of_errors(serve: Serve, tmp_path: Path) -> None:
    settings = ServerSettings(cors_origins=["https://app.example"], keys=[ADAS])
    client = serve(sqlite_app(tmp_path / "memory.db", settings))
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


def test_each_key_or_address_has_a_rate_that_its_answer_names(serve: Serve, tmp_path: Path) -> None:
    other, entry = new_key("ada", ["eve"])  # of the same name
    client = serve(sqlite_app(tmp_path / "memory.db", ServerSettings(keys=[ADAS, entry], rate_limit="3/hour")))
    statuses = [client.get("/memories/x", headers=bearer(ADA)).status_code for _ in range(4)]
    assert statuses == [404, 404, 404, 429]
    refused = client.get("/memories/x", headers=bearer(ADA))
    error = error_of(refused, 429, "rate_limited")
    assert 3000 < error["x-openproto"]["retry_after"] <= int(refused.headers["retry-after"]) <= 3600
    assert client.get("/memories/x", headers=bearer(other)).status_code == 404
    assert client.get("/healthz").status_code == 200
    open_ = serve(sqlite_app(tmp_path / "memory.db", ServerSettings(rate_limit="2 per hour")))
    assert [open_.get("/memories/x").status_code for _ in range(3)] == [404, 404, 429]
