"""The binding of keys and versions: PUT, If-Match, by-key, scopes, users, restore, repeated tags."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from server_tools import LONG, Scripted, Serve, error_of
from shelf import Shelf

from openproto import AsyncMemory
from openproto.server import ServerSettings, create_app, running
from openproto.server.keys import new_key

ADA, ADAS = new_key("ada", ["ada"])
ROOT, ROOTS = new_key("root", ["*"])
READER, READERS = new_key("reader", ["*"], read_only=True)
ITEM = {"content": "green tea", "user_id": "ada", "key": "drink"}


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    app = create_app(AsyncMemory(Shelf(), retries=0), ServerSettings(keys=[ADAS, ROOTS, READERS]))
    with running(app) as url, httpx.Client(base_url=url, headers={"X-API-Key": ROOT}, timeout=LONG) as client:
        yield client


def test_put_makes_the_memory_of_a_key_and_then_replaces_all_of_it(client: httpx.Client) -> None:
    made = client.put("/memories", json={**ITEM, "tags": ["hot"]})
    assert (made.status_code, made.headers["etag"]) == (201, f'"{made.json()["version"]}"')
    assert made.json()["key"] == "drink"
    replaced = client.put("/memories", json={**ITEM, "content": "black tea"})
    assert replaced.status_code == 200
    assert replaced.json()["id"] == made.json()["id"]
    assert replaced.json()["created_at"] == made.json()["created_at"]
    assert "tags" not in replaced.json()
    found = client.get("/memories/by-key", params={"user_id": "ada", "key": "drink"})
    assert (found.json(), found.headers["etag"]) == (replaced.json(), replaced.headers["etag"])
    error_of(client.post("/memories", json=ITEM), 409, "conflict")
    error_of(client.put("/memories", json={"content": "tea", "user_id": "ada"}), 400, "invalid_request")


def test_a_version_that_is_gone_is_412_for_put_patch_and_delete(client: httpx.Client) -> None:
    first = client.put("/memories", json=ITEM, headers={"If-None-Match": "*"})
    assert first.status_code == 201
    error_of(client.put("/memories", json=ITEM, headers={"If-None-Match": "*"}), 412, "conflict")
    path, stale = f"/memories/{first.json()['id']}", {"If-Match": first.headers["etag"]}
    second = client.patch(path, json={"source": {"app": "a"}, "x-note": 1}, headers=stale)
    assert (second.json()["source"], second.json()["x-note"]) == ({"app": "a"}, 1)
    error_of(client.put("/memories", json=ITEM, headers=stale), 412, "conflict")
    error_of(client.patch(path, json={"content": "x"}, headers=stale), 412, "conflict")
    error_of(client.delete(path, headers=stale), 412, "conflict")
    assert client.put("/memories", json=ITEM, headers={"If-Match": second.headers["etag"]}).status_code == 200


@pytest.mark.parametrize("value", ["v1", 'W/"v1"', '"v1", "v2"', '""', '"absent"', '"a b"', f'"{"v" * 65}"'])
def test_a_precondition_that_could_mean_anything_is_refused(client: httpx.Client, value: str) -> None:
    client.put("/memories", json=ITEM)
    error_of(client.put("/memories", json=ITEM, headers={"If-Match": value}), 400, "invalid_request")
    error_of(client.delete("/memories/m1", headers={"If-Match": value}), 400, "invalid_request")


def test_a_star_means_whichever_there_is(client: httpx.Client) -> None:
    path, star = f"/memories/{client.put('/memories', json=ITEM).json()['id']}", {"If-Match": "*"}
    error_of(client.put("/memories", json=ITEM, headers=star), 400, "invalid_request")
    assert client.patch(path, json={"tags": ["y"]}, headers=star).is_success
    assert client.delete(path, headers=star).is_success
    error_of(client.delete(path, headers=star), 404, "not_found")


def test_a_provider_without_versions_or_keys_refuses_them_by_name(serve: Serve) -> None:
    class Plain(Scripted):
        async def update(self, ref: object, changes: object) -> object:  # type: ignore[override]
            raise AssertionError("a version was dropped")

        async def add(self, item: object, *, idempotency_key: str) -> object:  # type: ignore[override]
            raise AssertionError("a key was dropped")

    client = serve(create_app(AsyncMemory(Plain()), ServerSettings()))
    answer = client.patch("/memories/m1", json={"content": "x"}, headers={"If-Match": '"v1"'})
    assert "version" in error_of(answer, 400, "unsupported_capability")["message"]
    assert "key" in error_of(client.post("/memories", json=ITEM), 400, "unsupported_capability")["message"]
    assert "put" in error_of(client.put("/memories", json=ITEM), 400, "unsupported_capability")["message"]


def test_a_key_of_one_user_sees_no_other_s(client: httpx.Client) -> None:
    client.put("/memories", json={**ITEM, "user_id": "eve"})
    ada = {"X-API-Key": ADA}
    error_of(client.get("/memories/by-key", params={"user_id": "eve", "key": "drink"}, headers=ada), 404, "not_found")
    error_of(client.put("/memories", json={**ITEM, "user_id": "eve"}, headers=ada), 403, "scope_denied")
    error_of(client.get("/scopes", params={"user_id": "eve"}, headers=ada), 403, "scope_denied")
    error_of(client.get("/users", headers=ada), 403, "scope_denied")
    error_of(client.get("/users", headers={"X-User-Id": "eve"}), 403, "scope_denied")
    error_of(client.post("/memories/restore", json={"records": []}, headers=ada), 403, "scope_denied")
    reader = {"X-API-Key": READER}
    error_of(client.post("/memories/restore", json={"records": []}, headers=reader), 403, "scope_denied")
    error_of(client.put("/memories", json=ITEM, headers=reader), 403, "scope_denied")
    assert client.put("/memories", json={"content": "tea", "key": "mine"}, headers=ada).json()["user_id"] == "ada"
    assert client.get("/memories/by-key", params={"key": "mine"}, headers=ada).status_code == 200


def test_scopes_users_and_restore(client: httpx.Client) -> None:
    for user, scope in (("ada", "food/tea"), ("ada", "food/cake"), ("bob", "food"), ("eve", "x")):
        client.post("/memories", json={"content": "c", "user_id": user, "scope": scope})
    counted = client.get("/scopes", params={"user_id": "ada", "depth": 1}).json()
    assert counted == {"scopes": [{"scope": "food", "records": 2}]}
    first = client.get("/users", params={"limit": 2}).json()
    rest = client.get("/users", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert (first["items"], rest) == (["ada", "bob"], {"items": ["eve"]})
    records = client.get("/memories", params={"user_id": "ada"}).json()["items"]
    client.delete(f"/memories/{records[0]['id']}")
    foreign = {**records[1], "user_id": "eve"}
    outcomes = client.post("/memories/restore", json={"records": [*records, foreign]}).json()["outcomes"]
    assert [each["outcome"] for each in outcomes] == ["restored", "exists", "refused"]
    assert outcomes[2]["error"]
    assert client.get(f"/memories/{records[0]['id']}").json() == records[0]
    broken = {"records": [{**records[0], "created_at": "yesterday"}]}
    message = error_of(client.post("/memories/restore", json=broken), 400, "invalid_request")["message"]
    assert "records.0.created_at" in message


def test_a_repeated_tag_wants_all_of_them(client: httpx.Client) -> None:
    for tags in (["a"], ["b"], ["a", "b"]):
        client.post("/memories", json={"content": f"tea {tags}", "user_id": "ada", "tags": tags})
    both = {"user_id": "ada", "tag": ["a", "b"]}
    assert [item["tags"] for item in client.get("/memories", params=both).json()["items"]] == [["a", "b"]]
    assert len(client.get("/memories/search", params={**both, "q": "tea"}).json()["results"]) == 1
    body = {"q": "tea", "user_id": "ada", "tag": ["a", "b"]}
    assert len(client.post("/memories/search", json=body).json()["results"]) == 1
    wanted = {"query": "tea", "user_id": "ada", "tag": "a", "relevant_only": True}
    assert len(client.post("/context", json=wanted).json()["citations"]) == 2
    assert client.delete("/memories", params=both).json() == {"deleted": 1}
