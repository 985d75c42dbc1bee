"""What `docs/operating.md` tells operators to write, run, and look for is what works."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from openproto import AsyncMemory, Memory
from openproto.server import ServerSettings, create_app, running
from openproto.server.keys import new_key

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/operating.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ENVIRONMENT, UNIT = (text for kind, text in BLOCKS if kind == "ini")
CONTAINER, NGINX = (text for kind, text in BLOCKS if kind in ("dockerfile", "nginx"))
(BACKUP,) = (text for kind, text in BLOCKS if kind == "console" and "openproto backup" in text)
HOST = "memory.example.com"
BIN = Path(sys.executable).parent


def test_a_server_takes_the_documented_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps([new_key("laptop", ["ada"])[1].model_dump(mode="json")]))
    for text in (ENVIRONMENT, CONTAINER):
        found = dict(re.findall(r"(OPENPROTO_SERVER_\w+)=(\S+)", text))
        with monkeypatch.context() as patched:
            for name, value in found.items():
                patched.setenv(name, str(keys) if name.endswith("KEYS_FILE") else value)
            settings = ServerSettings()
        assert settings.keys
        assert {name.removeprefix("OPENPROTO_SERVER_").lower() for name in found} <= settings.model_fields_set


def test_the_containers_health_check_fails_where_nothing_answers(tmp_path: Path) -> None:
    (command,) = re.findall(r"CMD (\[\"python.*\])", CONTAINER)
    memory = AsyncMemory("sqlite", path=str(tmp_path / "memory.db"), embedder="none")
    with running(create_app(memory, ServerSettings())) as url:
        asked = [sys.executable, "-c", json.loads(command)[2].replace("http://127.0.0.1:8080", url)]
        assert subprocess.run(asked).returncode == 0
    assert subprocess.run(asked, capture_output=True).returncode == 1


def test_a_backup_is_made_looked_at_and_rehearsed(tmp_path: Path) -> None:
    environment = {**os.environ, "OPENPROTO_PATH": str(tmp_path / "memory.db"), "OPENPROTO_EMBEDDER": "none"}
    with Memory("sqlite", path=environment["OPENPROTO_PATH"], embedder="none") as memory:
        memory.add("Ada takes her coffee black", user_id="ada")
    for line in BACKUP.splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        subprocess.run([BIN / program, *arguments], env=environment, cwd=tmp_path, check=True, capture_output=True)
    with Memory("sqlite", path=tmp_path / "rehearsal.db", embedder="none") as memory:
        assert [record.content for record in memory.list("ada")] == ["Ada takes her coffee black"]


def test_what_the_page_says_to_look_for_is_what_the_code_says() -> None:
    sources = [*ROOT.glob("openproto/**/*.py"), *ROOT.glob("adapters/**/*.py")]
    said = re.sub(r"\"\n\s+f?\"", "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    (table,) = re.findall(r"^## What to do when\n(.*)", PAGE, re.MULTILINE | re.DOTALL)
    quoted = re.findall(r"^\| \"(.*?)\"", table, re.MULTILINE)
    assert len(quoted) >= 6
    assert [text for text in quoted if text not in said] == []
    figures = {name.removesuffix("_count").removesuffix("_bucket") for name in re.findall(r"openproto_call\w+", PAGE)}
    assert figures == {"openproto_call_duration_seconds", "openproto_call_retries_total"}
    assert [name for name in figures if name.removesuffix("_total") not in said] == []


@contextmanager
def nginx(folder: Path, url: str) -> Iterator[str]:
    """Run the page's nginx in front of a server, on a free port, with a certificate of its own."""
    certificate, key = folder / "host.pem", folder / "host.key"
    made = f"openssl req -x509 -nodes -days 2 -subj /CN={HOST} -addext subjectAltName=DNS:{HOST}"
    subprocess.run([*made.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    site = NGINX.replace("listen 443", f"listen {address}").replace("127.0.0.1:8080", httpx.URL(url).netloc.decode())
    site = re.sub(r"/etc/ssl/\S+\.pem", str(certificate), site)
    site = re.sub(r"/etc/ssl/\S+\.key", str(key), site).replace("/var/log/nginx", str(folder))
    places = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in "client_body proxy fastcgi uwsgi scgi".split())
    whole = f"daemon off; master_process off; pid {folder}/pid; events {{}} http {{ {places}\n{site} }}"
    (folder / "nginx.conf").write_text(whole)
    command = [shutil.which("nginx") or "/usr/sbin/nginx", "-p", folder, "-e", folder / "error.log", "-c", "nginx.conf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(200):
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", int(address.split(":")[1]))).close()
                break
            time.sleep(0.05)
        try:
            assert process.poll() is None, process.communicate()[1]
            yield f"https://{address}"
        finally:
            process.terminate()


@pytest.mark.operating
def test_the_proxy_hands_on_what_the_server_needs_and_logs_nothing_of_the_memories(tmp_path: Path) -> None:
    key, entry = new_key("laptop", ["ada"])
    memory = AsyncMemory("sqlite", path=str(tmp_path / "memory.db"), embedder="none")
    app = create_app(memory, ServerSettings(keys=[entry], allowed_hosts=[HOST]))
    with running(app) as url, nginx(tmp_path, url) as front:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "host.pem"))
        client = httpx.Client(base_url=front, verify=trusted, headers={"Host": HOST, "X-API-Key": key}, timeout=30)

        def ask(method: str, path: str, **given: Any) -> httpx.Response:
            return client.request(method, path, extensions={"sni_hostname": HOST}, **given)

        def refused(method: str, path: str, **given: Any) -> str:
            return str(ask(method, path, **given).json()["error"]["code"])

        made = ask("POST", "/memories", json={"content": "xyzzy tea"})
        assert (made.status_code, made.headers["strict-transport-security"]) == (201, "max-age=31536000")
        hits = ask("GET", "/memories/search", params={"q": "xyzzy"}).json()["results"]
        assert [hit["memory"]["id"] for hit in hits] == [made.json()["id"]]
        missing = ask("GET", "/memories/a%2Fb")
        assert (missing.status_code, "no such route" in missing.text) == (404, False)
        assert refused("POST", "/memories", json={"content": "x" * 1_500_000}) == "payload_too_large"
        assert refused("GET", "/memories", headers={"Host": "evil.example.com"}) == "scope_denied"
        client.close()
    log = (tmp_path / "memories.log").read_text()
    assert made.headers["x-request-id"] in log
    assert "xyzzy" not in log


@pytest.mark.operating
def test_systemd_takes_the_unit_and_hadolint_the_container_file(tmp_path: Path) -> None:
    unit = tmp_path / "openproto.service"
    unit.write_text(UNIT.replace("/opt/openproto/bin/openproto", str(BIN / "openproto")))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (verified.returncode, [line for line in verified.stderr.splitlines() if unit.name in line]) == (0, [])
    (tmp_path / "Containerfile").write_text(CONTAINER)
    hadolint = shutil.which("hadolint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}") or "hadolint"
    looked = subprocess.run([hadolint, tmp_path / "Containerfile"], capture_output=True, text=True)
    assert looked.returncode == 0, looked.stdout
