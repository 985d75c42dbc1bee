"""The suite on a real Letta server: what `make check-letta` runs, and `make test` does not.

Version 0.16.8, the last that is a server, is installed in a folder of its own with the versions that its makers locked,
on a private PostgreSQL, with embeddings made here. Everything listens on loopback, runs for minutes, takes about a
gigabyte of disk, and is removed at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import httpx
import lasting
import numpy as np
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI
from numpy.typing import NDArray
from openproto_adapters.letta import Letta
from openproto_adapters.postgres.private import keeper
from openproto_conformance import ProviderSuite
from openproto_conformance.outcome import Result
from openproto_conformance.runner import run_suite

from openproto import Provider
from openproto.embedding.local import LocalEmbedder
from openproto.layers.audit import Audited
from openproto.server import running
from openproto.stores.words import terms

LETTA = "letta==0.16.8"
# Not letta[postgres], which wants a compiler.
DRIVERS = ("asyncpg", "pg8000", "pgvector")
START_WITHIN = 240.0
PASSWORD = os.environ.get("LETTA_SERVER_PASSWORD") or secrets.token_hex(16)


class RealLetta(ProviderSuite):
    """The adapter on the server at `url`, with an audit journal in a file."""

    secrets = (PASSWORD,)
    quick = True
    # It writes some dozens of memories a second.
    patience = 20.0
    url = ""
    journal = ""

    def provider(self) -> Provider:
        return Audited(Letta(base_url=self.url, api_key=PASSWORD), f"sqlite:///{self.journal}")

    def unreachable(self) -> Provider:
        return Letta(base_url="http://127.0.0.1:1", api_key=PASSWORD)


def main(*arguments: str) -> int:
    """Install, start, and try the server in the folder of the first argument, or in one that is then removed."""
    if arguments[:1] == ("serve",):
        with real_letta(Path(arguments[1])) as url:
            sys.stdout.write(f"{url}\n")
            sys.stdout.flush()
            sys.stdin.read()
        return 0
    with contextlib.ExitStack() as stack:
        home = Path(arguments[0] if arguments else stack.enter_context(tempfile.TemporaryDirectory(prefix="op-letta-")))
        RealLetta.url = stack.enter_context(_served(home))
        RealLetta.journal = str(home / "audit.db")
        report = run_suite(RealLetta(), progress=_tell)
        sys.stdout.write(f"{LETTA}: {report.headline}\n")
        return report.exit_status


@contextlib.contextmanager
def _served(home: Path) -> Iterator[str]:
    """Serve from a process of its own, so that the embeddings cost the suite no time."""
    command = [sys.executable, __file__, "serve", str(home)]
    environment = {**os.environ, "LETTA_SERVER_PASSWORD": PASSWORD}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as serving:
        assert serving.stdout is not None
        url = serving.stdout.readline().strip()
        if not url:
            raise RuntimeError("the server did not start: see above")
        yield url
        serving.communicate()


@contextlib.contextmanager
def real_letta(home: Path) -> Iterator[str]:
    home.mkdir(exist_ok=True)
    if not (home / "installed").exists():
        install(home)
    with embeddings() as embeddings_url, postgres() as port:
        environment = _environment(home, embeddings_url)
        uri = f"postgresql://postgres:none@127.0.0.1:{port}/letta"
        alembic = str(home / "server/bin/alembic")
        _run(alembic, "upgrade", "head", cwd=home / "source", env={**environment, "LETTA_PG_URI": uri})
        environment["LETTA_PG_URI"] = f"{uri}?sslmode=disable"
        with _serve(home, environment) as url:
            yield url


def install(home: Path) -> None:
    venv.create(home / "tools", with_pip=True)
    pip, uv = (str(home / "tools/bin" / name) for name in ("pip", "uv"))
    _run(pip, "install", "--quiet", "uv")
    _run(pip, "download", "--quiet", "--no-deps", "--no-binary", "letta", "--dest", str(home), LETTA)
    with tarfile.open(next(home.glob("letta-*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    next(home.glob("letta-*/")).rename(home / "source")
    pins = str(home / "pins.txt")
    options = ("--frozen", "--no-hashes", "--no-emit-project", "--no-dev", "--all-extras", "--quiet")
    _run(uv, "export", *options, "--output-file", pins, cwd=home / "source")
    _run(uv, "venv", "--quiet", "--python", sys.executable, str(home / "server"))
    packages = (LETTA.replace("=", "[server]=", 1), *DRIVERS)
    _run(uv, "pip", "install", "--quiet", "--python", str(home / "server"), "--constraint", pins, *packages)
    (home / "installed").touch()


@contextlib.contextmanager
def postgres() -> Iterator[int]:
    """Yield a port of loopback that leads to the Unix socket of a new PostgreSQL: of sockets Letta knows nothing."""

    async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(keeper.Place(home).socket)
        with contextlib.suppress(asyncio.CancelledError):  # when all ends, with connections open
            await asyncio.gather(forward(reader, ours), forward(theirs, writer))

    home = lasting.begin_run()
    try:
        lasting.postgres_url("letta")
        with start_blocking_portal() as portal:
            server = portal.call(asyncio.start_server, serve, "127.0.0.1", 0)
            yield server.sockets[0].getsockname()[1]
            portal.call(server.close)
    finally:
        lasting.end_run()


@contextlib.contextmanager
def embeddings() -> Iterator[str]:
    embedder = LocalEmbedder()
    embedder.open()

    app = FastAPI()

    @app.post("/v1/embeddings")
    def embed(asked: dict[str, Any]) -> dict[str, Any]:
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        vectors = [
            {"object": "embedding", "index": index, "embedding": [*_unit(vector), *_unit(_words(text))]}
            for index, (text, vector) in enumerate(zip(texts, embedder.embed(texts), strict=True))
        ]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return {"object": "list", "model": asked["model"], "data": vectors, "usage": usage}

    @app.get("/v1/models")
    def models() -> dict[str, Any]:
        return {"object": "list", "data": []}  # Letta has its own list of those that embed

    with running(app) as url:
        yield f"{url}/v1"


def _words(text: str) -> NDArray[np.float32]:
    """Return the text's words by number, for the local embedder, which adds up their pieces, mixes up a12 and a21."""
    counts = np.zeros(768, np.float32)
    for term in terms(text):
        counts[term % 768] += 1
    return counts


def _unit(vector: NDArray[np.float32]) -> list[float]:
    numbers: list[float] = (vector / max(float(np.linalg.norm(vector)), 1e-9)).tolist()
    return numbers


def _environment(home: Path, embeddings_url: str) -> dict[str, str]:
    # A TLS context is made for each embedding, and one certificate is read sooner than all of them.
    one = home / "one-certificate.pem"
    end = "-----END CERTIFICATE-----\n"
    one.write_text(Path(certifi.where()).read_text().partition(end)[0] + end)
    nowhere = "http://127.0.0.1:1"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LETTA_DIR": str(home / "letta"),
        "OPENAI_API_KEY": "unused",
        "OPENAI_BASE_URL": embeddings_url,
        "LETTA_DEFAULT_EMBEDDING_HANDLE": "openai/text-embedding-3-small",
        # Without a pool, every statement opens a connection, and some of them hang for ever.
        "LETTA_DISABLE_SQLALCHEMY_POOLING": "false",
        "LETTA_SERVER_SECURE": "true",
        "LETTA_SERVER_PASSWORD": PASSWORD,
        "LETTA_DISABLE_TRACING": "true",
        "DD_TRACE_ENABLED": "false",
        "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false",
        "SSL_CERT_FILE": str(one),
        "HTTP_PROXY": nowhere,
        "HTTPS_PROXY": nowhere,
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def _serve(home: Path, environment: dict[str, str]) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    work = home / "work"  # it writes files where it is started
    work.mkdir(exist_ok=True)
    with open(home / "server.log", "wb") as log:
        command = [str(home / "server/bin/letta"), "server", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(
            command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(url, server, home / "server.log")
        yield url
    finally:
        server.kill()  # its database is thrown away
        server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    with httpx.Client(trust_env=False) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if client.get(f"{url}/v1/health/").is_success:
                    return
            time.sleep(0.5)
    end = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"the server did not start within {START_WITHIN:g} s; the end of its log:\n{end}")


def _run(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=True)


def _tell(result: Result, done: int, of: int) -> None:
    sys.stdout.write(f"{done}/{of} {result.work} {result.outcome} {result.detail}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
