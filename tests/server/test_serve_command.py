"""`openproto serve` and `openproto keys`: flags, mistakes, the log, figures, and keys that change meanwhile."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from server_tools import COMMAND, LONG, Start

from openproto.cli.app import run
from openproto.server.keys import new_key
from openproto.server.keys_file import edited_keys


def test_flags_win_and_access_lines_say_nothing_of_the_memories(start: Start, tmp_path: Path) -> None:
    environment = {"OPENPROTO_SERVER_HOST": "127.0.0.2", "OPENPROTO_SERVER_LOG_FORMAT": "json"}
    server = start("--host", "127.0.0.3", OPENPROTO_PATH=str(tmp_path / "memory.db"), **environment)
    assert f"serving sqlite on {server.url} (1 worker, no API keys)" in json.loads(server.first_line)["message"]
    assert server.url.startswith("http://127.0.0.3:")
    with httpx.Client(base_url=server.url, headers={"X-API-Key": "xyzzy-key"}, timeout=LONG) as client:
        id = client.post("/memories", json={"content": "xyzzy-content", "user_id": "xyzzy-user"}).json()["id"]
        client.get(f"/memories/{id}", params={"user_id": "xyzzy-user"}, headers={"X-Request-Id": "r-1"})
        client.get("/memories/search", params={"q": "xyzzy-query", "user_id": "xyzzy-user"})
        client.get("/xyzzy-path")
    log = server.stop()
    assert "xyzzy" not in log
    assert id not in log
    lines = [json.loads(line) for line in log.splitlines()]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/memories", 201),
        ("GET", "/memories/{id}", 200),
        ("GET", "/memories/search", 200),
        ("GET", "-", 404),
    ]
    assert lines[1]["request_id"] == "r-1"
    for line in lines:
        assert set(line) == {"time", "level", "logger", "method", "route", "status", "ms", "request_id"}
        assert 0 <= line["ms"] < LONG * 1000


def test_what_a_library_logs_is_a_line_like_any_other_without_its_traceback_and_below_the_level_is_none() -> None:
    program = """
import logging.config
from openproto.server import ServerSettings
from openproto.server.log import log_config
logging.config.dictConfig(log_config(ServerSettings(log_format="json", log_level="warning")))
logging.getLogger("openproto.server").info("serving")
try:
    raise ValueError("xyzzy")
except ValueError:
    logging.getLogger("asyncpg.pool").exception("the pool is short of connections")
"""
    done = subprocess.run([COMMAND[0], "-c", program], capture_output=True, text=True, check=True, timeout=LONG)
    line = json.loads(done.stderr)
    assert (line["level"], line["logger"]) == ("error", "asyncpg.pool")
    assert "xyzzy" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "port: "),
        (["--port", "TAKEN"], "127.0.0.1 port TAKEN: Address already in use; choose another port"),
        (["--host", "no-such-host.invalid", "--allow-unauthenticated"], "no-such-host.invalid port 0: "),
        (["--workers", "0"], "workers: "),
        (["--host", "0.0.0.0"], "without API keys"),
        (["--keys", "/no/such/file"], "/no/such/file: No such file or directory; `openproto keys add` makes it"),
        (["--rate-limit", "many"], "rate_limit: "),
        (["--rate-limit", "0/minute"], "rate_limit: "),
        (["--cors-origin", "app.example"], "cors_origins.0: "),
        (["--log-level", "loud"], "log_level: "),
        (["--log-format", "nonsense"], "log_format: "),
        (["--metrics", "everywhere"], "metrics: must be a port, or an address and a port"),
        (["--metrics", "127.0.0.1:TAKEN"], "127.0.0.1 port TAKEN: Address already in use"),
        (["--provider", "postgress"], "did you mean 'postgres'"),
        (["--path", "/dev/null/memory.db"], "cannot be opened"),
        (["--provider", "postgres", "--url", "postgresql://me:xyzzy@127.0.0.1:1/x"], "cannot be reached"),
        (["--provider", "postgres", "--url", "nonsense"], "url"),
    ],
)
def test_a_mistake_is_named_in_one_line_before_anything_is_served(
    tmp_path: Path, arguments: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENPROTO_PATH", str(tmp_path / "memory.db"))
    monkeypatch.setenv("OPENPROTO_EMBEDDER", "none")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(["serve", "--port", "0", *(each.replace("TAKEN", port) for each in arguments)]) > 0
    said = capsys.readouterr().err
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert says.replace("TAKEN", port) in line
    assert "xyzzy" not in said
    assert "serving" not in said


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert run(["serve"]) == 7
    assert capsys.readouterr().err == "error: the server needs 'uvicorn': pip install 'openproto[server]'\n"


def test_figures_of_all_workers_stand_together_and_say_nothing_of_whom_or_what(start: Start, tmp_path: Path) -> None:
    key, entry = new_key("a-key", ["ada"])
    server = start(
        *("--workers", "2", "--metrics", "0"),
        OPENPROTO_PATH=str(tmp_path / "memory.db"),
        OPENPROTO_SERVER_KEYS=f"[{entry.model_dump_json()}]",
    )
    headers = {"Authorization": f"Bearer {key}"}
    for number in range(8):  # each on a connection of its own, so that all workers get some
        item = {"content": f"black coffee {number}", "scope": "food", "user_id": "ada"}
        httpx.post(f"{server.url}/memories", json=item, headers=headers, timeout=LONG)
    httpx.get(f"{server.url}/memories/nothing", headers=headers, timeout=LONG)
    (url,) = re.findall(r"metrics on (\S+)", server.first_line)
    text = httpx.get(url, timeout=LONG).text
    assert 'openproto_call_duration_seconds_count{outcome="ok",provider="sqlite",verb="add"} 8.0' in text
    assert 'openproto_call_duration_seconds_count{outcome="not_found",provider="sqlite",verb="get"} 1.0' in text
    assert not re.search("ada|coffee|food|a-key", text)
    assert httpx.get(f"{server.url}/metrics", headers=headers, timeout=LONG).status_code == 404
    server.stop()
    assert server.process.returncode == 0


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
    until(lambda: server.said().count("3 API keys of") == int(workers))  # all of which are there by now
    assert reach(server.url, second, "eve") == 200
    keys(file, "revoke", "first", "--yes")
    third = keys(file, "rotate", "second", "--yes")
    for number in range(8):
        with edited_keys(file) as entries:
            entries[2:] = [new_key(f"passing {number}", ["ada"])[1]]
        os.kill(server.process.pid, signal.SIGHUP)
    seen = [401] * 20 + [200] * 10  # by every worker, whichever answers
    until(lambda: [reach(server.url, key) for key in (first, second, third) for _ in range(10)] == seen)
    replace(file, '[{"name": "broken')
    until(lambda: server.said().count("the keys that were read before stay in use") == int(workers))
    assert httpx.get(f"{server.url}/healthz", timeout=LONG).json()["status"] == "degraded"
    assert reach(server.url, third) == 200
    until(lambda: len(answers) >= 200)
    assert set(answers) == {200}
    keys(file, "list", status=2)
    replace(file, "[]")
    until(lambda: reach(server.url, third) == 401)
    until(lambda: httpx.get(f"{server.url}/healthz", timeout=LONG).json()["status"] == "ok")
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
