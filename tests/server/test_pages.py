"""The pages of the server: which there are, under which policy, and what they may load."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from server_tools import LONG, Serve, error_of
from waiting import until

from openproto.server.keys import new_key

POLICY = {
    *(f"{kind} 'none'" for kind in ("default-src", "base-uri", "form-action", "frame-ancestors")),
    *(f"{kind} 'self'" for kind in ("script-src", "style-src", "connect-src")),
    "img-src 'self' data:",
}
PAGE = files("openproto.server.inspector").joinpath("page")
FOREIGN = re.compile(
    r"""<script(?! type="module" src=)|<style|\sstyle=|\son\w+=|innerHTML|insertAdjacentHTML|document\.write|\beval\("""
    r"|localStorage|sessionStorage|document\.cookie|https?://(?!www\.w3)"
)
"""What a page under this policy does without: markup made of text, places that outlive the tab, other hosts."""


def test_the_inspector_is_served_only_where_it_is_wanted(client: httpx.Client, serve_file: Serve) -> None:
    for path in ("/", "/ui", "/ui/app.js", "/ui/status"):
        error_of(client.get(path), 404, "not_found")
    shown = serve_file(ui=True)
    assert (shown.get("/").status_code, shown.get("/").headers["location"]) == (307, "ui")
    assert 'data-login="no"' in shown.get("/ui").text
    error_of(shown.get("/ui/nothing.js"), 404, "not_found")
    assert set(shown.get("/openapi.json").json()["paths"]) == set(client.get("/openapi.json").json()["paths"])


def test_every_file_comes_under_the_policy_and_needs_nothing_from_elsewhere(serve_file: Serve) -> None:
    server = serve_file(ui=True)
    names = [entry.name for entry in PAGE.iterdir() if not entry.name.endswith(".html")]
    for path in ("/ui", "/docs", *(f"/ui/{name}" for name in names), "/docs/docs.js", "/docs/base.css"):
        answer = server.get(path)
        assert answer.status_code == 200, path
        assert {*answer.headers["content-security-policy"].split("; ")} == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not FOREIGN.search(answer.text)
        again = server.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert sum(len(entry.read_bytes()) for entry in PAGE.iterdir()) <= 150_000


def test_a_key_is_shown_what_it_may_and_only_one_of_all_users_the_figures(serve_file: Serve) -> None:
    made = [new_key("one", ["ada"], read_only=True), new_key("all", ["*"])]
    server = serve_file(ui=True, keys=[entry for _, entry in made])
    assert 'data-login="yes"' in server.get("/ui").text
    error_of(server.get("/ui/status"), 401, "unauthorized")
    one, all_ = (server.get("/ui/status", headers={"X-API-Key": key}).json() for key, _ in made)
    assert one == {"key": {"users": ["ada"], "read_only": True}}
    assert all_["key"] == {"users": None, "read_only": False}
    assert {"calls", "in_flight", "cancelled", "verbs"} <= set(all_["figures"])


@pytest.mark.parametrize("browsers", ["one", "unwanted", "none"])
def test_the_command_prints_the_address_opens_a_browser_and_ends_in_order(tmp_path: Path, browsers: str) -> None:
    opened, browser = tmp_path / "opened", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part; /bin/mv {opened}.part {opened}\n')
    browser.chmod(0o700)
    command = [sys.executable, "-W", "error", "-m", "openproto.cli", "ui", "--json", "--option", "embedder=none"]
    with subprocess.Popen(
        [*command, "--path", str(tmp_path / "memory.db"), *(["--no-browser"] if browsers == "unwanted" else [])],
        env={**os.environ, "PATH": str(tmp_path), "BROWSER": "" if browsers == "none" else f"{browser} %s"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as started:
        try:
            assert started.stdout
            page = json.loads(started.stdout.readline())["url"]
            assert httpx.get(page, timeout=LONG).headers["content-type"].startswith("text/html")
            if browsers == "one":
                asyncio.run(until(opened.exists, LONG))
                assert opened.read_text() == page
        finally:
            started.send_signal(signal.SIGINT)
            _, said = started.communicate(timeout=LONG)
    assert (started.returncode, said, opened.exists()) == (0, "", browsers == "one")
