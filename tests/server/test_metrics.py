"""`openproto serve --metrics`: Prometheus finds figures on a port of their own, and nothing of whom or what."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from server_tools import COMMAND, LONG, Process

from openproto.server.keys import new_key

Start = Callable[..., Process]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_figures_of_all_workers_stand_together(start: Start, tmp_path: Path, workers: str) -> None:
    key, entry = new_key("a-key", ["ada"])
    server = start(
        *("--workers", workers, "--metrics", "0"),
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


def test_what_is_wrong_is_told_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError('No module named prometheus_client', name='prometheus_client')"
    )

    def refusal(metrics: str, path: str = "") -> str:
        options = ["--port", "0", "--path", str(tmp_path / "memory.db"), "--metrics", metrics]
        environment = {**os.environ, "OPENPROTO_EMBEDDER": "none"}
        if path:
            environment["PYTHONPATH"] = os.pathsep.join([path, environment.get("PYTHONPATH", "")])
        ended = subprocess.run([*COMMAND, *options], env=environment, capture_output=True, text=True, timeout=LONG)
        assert ended.returncode > 0
        return ended.stderr

    assert "error: metrics: must be a port, or an address and a port" in refusal("everywhere")
    assert "pip install 'openproto[prometheus]'" in refusal("0", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refusal(f"127.0.0.1:{port}") == f"error: 127.0.0.1 port {port}: Address already in use\n"
