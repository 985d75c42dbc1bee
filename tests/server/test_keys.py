"""Keys while a server runs: added, rotated, revoked, expired, broken; and what `openproto keys` does to their file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_tools import LONG, Process, Serve, error_of, sqlite_app

from openproto.server import ServerSettings
from openproto.server.keys import new_key
from openproto.server.keys_file import edited_keys

COMMAND = [sys.executable, "-W", "error", "-m", "openproto.cli", "keys"]
Start = Callable[..., Process]


def keys(file: Path, *arguments: str, status: int = 0) -> str:
    """Run `openproto keys` and return what it prints."""
    done = subprocess.run([*COMMAND, *arguments, "--file", str(file)], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False), done.stderr
    return done.stdout.strip() if status == 0 else done.stderr


def reach(url: str, key: str, user: str = "ada") -> int:
    return httpx.get(f"{url}/memories", params={"user_id": user}, headers={"X-API-Key": key}, timeout=LONG).status_code


def health(url: str) -> str:
    status: str = httpx.get(f"{url}/healthz", timeout=LONG).json()["status"]
    return status


def replace(file: Path, text: str) -> None:
    """Replace the file at once, as an editor does: a server sees no half of it."""
    new = file.with_suffix(".edited")
    new.write_text(text)
    new.replace(file)


def until(reached: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + LONG
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_running_server_follows_its_file_and_no_request_of_a_good_key_fails(
    start: Start, tmp_path: Path, workers: str
) -> None:
    file = tmp_path / "keys.json"
    good, first = keys(file, "add", "good", "ada"), keys(file, "add", "first", "ada")
    server = start("--keys", str(file), "--workers", workers, OPENPROTO_PATH=str(tmp_path / "memory.db"))
    stop, answers = threading.Event(), list[int]()

    def work() -> None:
        with httpx.Client(base_url=server.url, headers={"X-API-Key": good}, timeout=LONG) as client:
            while not stop.is_set():
                answers.append(client.get("/memories", params={"user_id": "ada"}).status_code)

    until(lambda: reach(server.url, first) == 200)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    second = keys(file, "add", "second", "*")
    until(lambda: reach(server.url, second, "eve") == 200)
    keys(file, "revoke", "first", "--yes")
    third = keys(file, "rotate", "second", "--yes")
    for number in range(20):
        with edited_keys(file) as entries:
            entries[2:] = [new_key(f"passing {number}", ["ada"])[1]]
        os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: [reach(server.url, key) for key in (first, second, third) for _ in range(3)] == [401] * 6 + [200] * 3)
    replace(file, '[{"name": "broken')
    until(lambda: health(server.url) == "degraded")
    assert reach(server.url, third) == 200
    until(lambda: len(answers) >= 1000)
    assert set(answers) == {200}
    keys(file, "list", status=2)
    replace(file, "[]")
    until(lambda: health(server.url) == "ok" and reach(server.url, third) == 401)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 401}  # since the file is empty
    said = server.stop()
    assert sum("the keys that were read before stay in use" in line for line in said.splitlines()) == int(workers)
    assert not any(key in said for key in (good, first, second, third))
    assert server.process.returncode == 0


def test_uses_are_counted_and_shown(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = keys(file, "add", "laptop", "ada", "--read-only", "--expires", "2100-01-01T00:00:00Z")
    server = start("--keys", str(file), "--log-clients", OPENPROTO_PATH=str(tmp_path / "memory.db"))
    for _ in range(3):
        assert reach(server.url, key) == 200
    lines = [line for line in server.stop().splitlines() if " /memories 200 " in line]
    assert [line.partition(" key=")[2] for line in lines] == ["'laptop' client=127.0.0.1"] * 3
    (entry,) = json.loads(keys(file, "list", "--json"))["keys"]
    assert (entry["usage"]["count"], entry["read_only"], entry["users"]) == (3, True, ["ada"])
    assert keys(file, "list").split("\t")[:5] == ["laptop", "ada", "read", "2100-01-01T00:00", "3"]


def test_the_file_of_keys_is_private_and_whole_and_changed_by_one_at_a_time(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    adding = [
        subprocess.Popen([*COMMAND, "add", f"key {number}", "ada", "-f", str(file)], stdout=subprocess.PIPE)
        for number in range(4)
    ]
    secrets = [process.communicate(timeout=LONG)[0].decode().strip() for process in adding]
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert sorted(entry["name"] for entry in json.loads(text)) == [f"key {number}" for number in range(4)]
    assert all(secret.startswith("op_") and secret not in text for secret in secrets)
    assert "named 'key 1' already" in keys(file, "add", "key 1", "eve", status=2)
    assert "no key named 'x'" in keys(file, "rotate", "x", "--yes", status=2)
    assert "--yes" in keys(file, "revoke", "key 1", status=2)
    assert file.read_text() == text


def test_a_key_that_may_only_read_writes_nothing_and_an_expired_one_opens_nothing(serve: Serve, tmp_path: Path) -> None:
    reader, entry = new_key("reader", ["ada"], read_only=True)
    late, past = new_key("late", ["ada"], expires=datetime.now(UTC) - timedelta(seconds=1))
    client = serve(sqlite_app(tmp_path / "memory.db", ServerSettings(keys=[entry, past])))
    client.headers["X-API-Key"] = reader
    writes: list[tuple[str, str, Any]] = [
        ("POST", "/memories", {"content": "tea"}),
        ("POST", "/memories/batch", {"items": []}),
        ("PATCH", "/memories/a", {"content": "tea"}),
        ("DELETE", "/memories/a", None),
        ("DELETE", "/memories", None),
    ]
    for method, path, body in writes:
        error_of(client.request(method, path, json=body), 403, "scope_denied")
    assert client.get("/memories").json()["items"] == []
    assert "expired" in error_of(client.get("/memories", headers={"X-API-Key": late}), 401, "unauthorized")["message"]


def test_a_key_of_one_user_need_not_name_the_user(serve: Serve, tmp_path: Path) -> None:
    (ada, one), (pair, two) = new_key("one", ["ada"]), new_key("two", ["ada", "bob"])
    client = serve(sqlite_app(tmp_path / "memory.db", ServerSettings(keys=[one, two])))
    mine = {"X-API-Key": ada}
    record = client.post("/memories", json={"content": "green tea"}, headers=mine).json()
    assert record["user_id"] == "ada"
    made = client.post("/memories/batch", json={"items": [{"content": "more tea"}]}, headers=mine).json()["outcomes"]
    assert made[0]["memory"]["user_id"] == "ada"
    assert len(client.get("/memories/search", params={"q": "tea"}, headers=mine).json()["results"]) == 2
    assert client.post("/context", json={"query": "tea"}, headers=mine).json()["citations"]
    error_of(client.post("/memories", json={"content": "x", "user_id": "bob"}, headers=mine), 403, "scope_denied")
    error_of(client.get("/memories", headers={"X-API-Key": pair}), 400, "invalid_request")
    assert len(client.get("/memories", headers={"X-API-Key": pair, "X-User-Id": "ada"}).json()["items"]) == 2
