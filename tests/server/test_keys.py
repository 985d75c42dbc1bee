"""Keys while a server runs: added, rotated, revoked, broken; and what `openproto keys` does to their file."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from server_tools import LONG, Start

from openproto.cli.app import run
from openproto.server.keys import new_key
from openproto.server.keys_file import edited_keys

Keys: TypeAlias = Callable[..., str]


@pytest.fixture
def keys(capsys: pytest.CaptureFixture[str]) -> Keys:
    """Run `openproto keys` and return what it prints, or what it says where it fails with a status."""

    def command(file: Path, *arguments: str, status: int = 0) -> str:
        assert run(["keys", *arguments, "--file", str(file)]) == status
        said = capsys.readouterr()
        return said.err if status else said.out.strip()

    return command


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
    deadline = time.monotonic() + LONG
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_running_server_follows_its_file(start: Start, keys: Keys, tmp_path: Path, workers: str) -> None:
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
    for number in range(8):
        with edited_keys(file) as entries:
            entries[2:] = [new_key(f"passing {number}", ["ada"])[1]]
        os.kill(server.process.pid, signal.SIGHUP)
    until(lambda: [reach(server.url, key) for key in (first, second, third) for _ in range(3)] == [401] * 6 + [200] * 3)
    replace(file, '[{"name": "broken')
    until(lambda: server.said().count("the keys that were read before stay in use") == int(workers))
    assert health(server.url) == "degraded"
    assert reach(server.url, third) == 200
    until(lambda: len(answers) >= 200)
    assert set(answers) == {200}
    keys(file, "list", status=2)
    replace(file, "[]")
    until(lambda: health(server.url) == "ok" and reach(server.url, third) == 401)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(answers) <= {200, 401}  # since the file is empty
    said = server.stop()
    assert said.count("the keys that were read before stay in use") == int(workers)
    assert not any(key in said for key in (good, first, second, third))
    assert server.process.returncode == 0


def test_uses_are_counted_and_shown(start: Start, keys: Keys, tmp_path: Path) -> None:
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


def test_the_file_of_keys_is_private_and_whole_and_changed_by_one_at_a_time(keys: Keys, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    names = [f"key {number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(run, [["keys", "add", name, "ada", "--file", str(file)] for name in names])) == {0}
    secret = keys(file, "add", "mine", "ada").splitlines()[-1]
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert sorted(entry["name"] for entry in json.loads(text)) == [*names, "mine"]
    assert secret.startswith("op_")
    assert secret not in text
    assert "named 'key 1' already" in keys(file, "add", "key 1", "eve", status=2)
    assert "no key named 'x'" in keys(file, "rotate", "x", "--yes", status=2)
    assert "--yes" in keys(file, "revoke", "key 1", status=2)
    assert file.read_text() == text
