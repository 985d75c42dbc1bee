"""`openproto serve`: flags, mistakes named in a line, several workers, the log."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from server_tools import COMMAND, LONG, Process

Start = Callable[..., Process]


def refused(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run a command that must fail, and return its status and what it said."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, "OPENPROTO_EMBEDDER": "none", **environment},
        capture_output=True,
        text=True,
        timeout=LONG,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_flags_win_over_the_environment_and_that_over_defaults(start: Start, tmp_path: Path) -> None:
    environment = {
        "OPENPROTO_PATH": str(tmp_path / "memory.db"),
        "OPENPROTO_SERVER_HOST": "127.0.0.2",
        "OPENPROTO_SERVER_LOG_FORMAT": "json",
    }
    assert "http://127.0.0.2:" in json.loads(start(**environment).first_line)["message"]
    server = start("--host", "127.0.0.3", "--log-format", "text", **environment)
    assert server.url.startswith("http://127.0.0.3:")
    assert f" info serving sqlite on {server.url} (1 worker, no API keys)" in server.first_line
    assert httpx.get(f"{server.url}/healthz", timeout=LONG).json() == {"status": "ok", "provider": "sqlite"}
    httpx.get(f"{server.url}/capabilities", headers={"X-Request-Id": "r-2"}, timeout=LONG)
    _, line = server.stop().splitlines()  # one for each request
    assert re.fullmatch(r"\S+Z info GET /capabilities 200 \d+\.\d ms r-2", line)


def test_an_access_line_says_method_template_status_time_and_id_and_nothing_of_the_memories(
    start: Start, tmp_path: Path
) -> None:
    server = start("--log-format", "json", OPENPROTO_PATH=str(tmp_path / "memory.db"))
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


def test_what_a_library_logs_is_a_line_like_any_other_without_its_traceback() -> None:
    program = """
import logging.config
from openproto.server import ServerSettings
from openproto.server.log import log_config
logging.config.dictConfig(log_config(ServerSettings(log_format="json")))
try:
    raise ValueError("xyzzy")
except ValueError:
    logging.getLogger("asyncpg.pool").exception("the pool is short of connections")
"""
    done = subprocess.run([COMMAND[0], "-c", program], capture_output=True, text=True, check=True, timeout=LONG)
    line = json.loads(done.stderr)
    assert (line["level"], line["logger"]) == ("error", "asyncpg.pool")
    assert "xyzzy" not in done.stderr


def test_a_log_level_above_info_is_silent(tmp_path: Path, start: Start) -> None:
    with pytest.raises(AssertionError):  # the line that says where it listens is not there either
        start("--log-level", "warning", "--log-format", "nonsense", OPENPROTO_PATH=str(tmp_path / "memory.db"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "port: "),
        (["--port", "TAKEN"], "Address already in use"),
        (["--workers", "0"], "workers: "),
        (["--host", "0.0.0.0"], "without API keys"),
        (["--keys", "/no/such/file"], "/no/such/file: No such file"),
        (["--rate-limit", "many"], "rate_limit: "),
        (["--rate-limit", "0/minute"], "rate_limit: "),
        (["--cors-origin", "app.example"], "cors_origins.0: "),
        (["--allowed-host", "memory.example:443"], "allowed_hosts.0: "),
        (["--log-level", "loud"], "log_level: "),
        (["--provider", "postgress"], "did you mean 'postgres'"),
        (["--path", "/dev/null/memory.db"], "cannot be opened"),
        (["--provider", "postgres", "--url", "postgresql://me:xyzzy@127.0.0.1:1/x"], "cannot be reached"),
        (["--provider", "postgres", "--url", "nonsense"], "url"),
        (["--host", "no-such-host.invalid", "--allow-unauthenticated"], "no-such-host.invalid port"),
    ],
)
def test_a_mistake_is_named_in_one_line_before_anything_is_served(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = [port if each == "TAKEN" else each for each in arguments]
        status, said = refused(*arguments, OPENPROTO_PATH=str(tmp_path / "memory.db"))
    assert status > 0
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert says in line
    assert "xyzzy" not in said
    assert "serving" not in said


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path: Path) -> None:
    hide = "import sys; sys.modules['uvicorn'] = None; from openproto.cli import main; sys.exit(main())"
    done = subprocess.run([COMMAND[0], "-c", hide, "serve"], capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 7
    assert done.stderr == "error: the server needs 'uvicorn': pip install 'openproto[server]'\n"
