"""`openproto serve`: flags, mistakes named in a line, the log, figures for Prometheus."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from server_tools import COMMAND, LONG, Start

from openproto.cli.app import run
from openproto.server.keys import new_key


def test_flags_win_and_access_lines_say_nothing_of_the_memories(start: Start, tmp_path: Path) -> None:
    environment = {"OPENPROTO_SERVER_HOST": "127.0.0.2", "OPENPROTO_SERVER_LOG_FORMAT": "json"}
    server = start("--host", "127.0.0.3", OPENPROTO_PATH=str(tmp_path / "memory.db"), **environment)
    assert f"serving sqlite on {server.url} (1 worker, no API keys)" in json.loads(server.first_line)["message"]
    assert server.url.startswith("http://127.0.0.3:")
    with httpx.Client(base_url=server.url, headers={"X-API-Key": "xyzzy-key"}, timeout=LONG) as client:
        made = client.post("/memories", json={"content": "xyzzy-content", "user_id": "xyzzy-user"})
        id = made.json()["id"]
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
        (["--port", "TAKEN"], "127.0.0.1 port TAKEN: Address already in use"),
        (["--host", "no-such-host.invalid", "--allow-unauthenticated"], "no-such-host.invalid port 0: "),
        (["--workers", "0"], "workers: "),
        (["--host", "0.0.0.0"], "without API keys"),
        (["--keys", "/no/such/file"], "/no/such/file: No such file"),
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
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
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
