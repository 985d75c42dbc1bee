"""The bounds of a connection, and its end: what goes on for ever, too many, clients that leave, a server that ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import lasting
import pytest
from server_tools import LONG, Process, Serve, Start, connect, read_all, scripted_app

from openproto import AsyncMemory
from openproto.server import ServerSettings

HOST = b"Host: localhost\r\n"
HEAD = b"GET /capabilities HTTP/1.1\r\n" + HOST
GET = b"GET /memories/a HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /memories HTTP/1.1\r\nContent-Type: application/json\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n"
EMPTY_BODY = CHUNKED + b"\r\n2\r\n{}\r\n0\r\n"
LONG_BODY = b"Content-Length: 1000000\r\n\r\n"
LAST = b"Connection: close\r\n"
SLOW = 0.3
MiB = 2**20


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Return the status and the JSON of what the server sends until it hangs up."""
    head, _, body = read_all(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def asked(client: httpx.Client, sent: bytes = b"") -> tuple[int, dict[str, Any]]:
    with connect(client.base_url, sent) as connection:
        return answer(connection)


@pytest.fixture
def impatient(serve_file: Serve) -> httpx.Client:
    return serve_file(head_timeout=SLOW, body_timeout=SLOW, idle_timeout=SLOW)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"X-Long: ", b"x" * 10_000),
        (HEAD, b"X-Many: yes\r\n" * 1000),
        (b"GET /", b"x" * 10_000),
        (EMPTY_BODY + b"X-Long: ", b"x" * 10_000),
        (EMPTY_BODY, b"X-Many: yes\r\n" * 1000),
        (CHUNKED + b"\r\n2;", b"x" * 10_000),
        (b"", b"\r\n" * 5000),
    ],
    ids=["header", "headers", "path", "trailer", "trailers", "chunk extension", "empty lines"],
)
def test_nothing_but_a_body_may_go_on_for_ever(client: httpx.Client, start: bytes, piece: bytes) -> None:
    sent = 0
    with connect(client.base_url, start) as connection, contextlib.suppress(ConnectionError):
        while sent < 20 * MiB:
            connection.sendall(piece)
            sent += len(piece)
    assert sent < 8 * MiB  # most of it waits in the sockets' buffers
    assert client.get("/capabilities").status_code == 200


@pytest.mark.parametrize("start", [HEAD, EMPTY_BODY], ids=["head", "trailers"])
def test_the_bound_of_head_and_trailers_is_answered_with_431(client: httpx.Client, start: bytes) -> None:
    status, body = asked(client, start + b"X-Long: " + b"x" * 2**16)
    assert (status, body["error"]["code"]) == (431, "invalid_request")
    assert asked(client, HEAD + LAST + b"X-Long: " + b"x" * (2**16 - 200) + b"\r\n\r\n")[0] == 200


def test_a_body_in_tiny_chunks_is_taken_and_its_trailers_are_not_headers(client: httpx.Client) -> None:
    body = json.dumps({"content": "tea " * 20_000, "user_id": "ada"}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-User-Id: eve\r\n\r\n"
    assert asked(client, CHUNKED + LAST + b"\r\n" + chunks)[0] == 201


@pytest.mark.parametrize("start", [HEAD, POST + b"Content-Length: 100\r\n\r\n{"], ids=["head", "body"])
def test_what_comes_too_slowly_is_answered_with_408(impatient: httpx.Client, start: bytes) -> None:
    status, body = asked(impatient, start)
    assert (status, body["error"]["code"]) == (408, "invalid_request")


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD, b"X-Drop: yes\r\n"),
        (POST + LONG_BODY, b"{"),
        (CHUNKED + b"\r\n", b"1\r\n{\r\n"),
        (HEAD + LONG_BODY, b"{"),  # answered at once, and dribbling on
        (b"", b"\r\n"),
    ],
    ids=["head", "body", "chunks", "unread body", "empty lines"],
)
def test_dribbling_does_not_put_a_deadline_off(impatient: httpx.Client, start: bytes, piece: bytes) -> None:
    with connect(impatient.base_url, start) as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(SLOW / 10)
        closed = time.monotonic() + LONG
        while time.monotonic() < closed:
            connection.sendall(piece)
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65536):
                    break
        else:
            raise AssertionError("the server goes on listening")


def test_a_silent_connection_is_closed_and_a_used_one_kept_for_a_while(impatient: httpx.Client) -> None:
    with connect(impatient.base_url) as silent, connect(impatient.base_url) as used:
        for _ in range(3):
            used.sendall(HEAD + b"\r\n")
            assert used.recv(65536).startswith(b"HTTP/1.1 200")
        assert read_all(silent) == b""
        assert b"HTTP" not in read_all(used)


def test_a_client_that_reads_nothing_is_cut_off(serve_file: Serve) -> None:
    client = serve_file(idle_timeout=SLOW)
    item = {"content": "x" * 100_000, "user_id": "ada"}
    for _ in range(10):
        client.post("/memories/batch", json={"items": [item] * 9}).raise_for_status()
    listing = b"GET /memories?user_id=ada&limit=500 HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(client.base_url, listing * 3) as connection:
        time.sleep(4 * SLOW)
        with contextlib.suppress(ConnectionError):
            assert len(read_all(connection)) < 3 * 9 * MiB


def test_a_long_call_has_no_deadline_here(serve: Serve) -> None:
    provider, app = scripted_app()
    client = serve(app, ServerSettings(head_timeout=SLOW, body_timeout=SLOW, idle_timeout=SLOW))
    with connect(client.base_url, GET) as connection:
        assert provider.asked.wait(LONG)
        connection.settimeout(4 * SLOW)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert not provider.cancelled.is_set()
    assert provider.cancelled.wait(LONG)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (HOST + b"Connection: close, upgrade\r\nUpgrade: h2c\r\n", 200),
        (HOST * 2 + LAST, 400),
        (LAST, 400),
        (HOST + b"Origin: null\r\n" * 2 + LAST, 400),
    ],
    ids=["closed in spite of an offered upgrade", "two hosts", "no host", "two origins"],
)
def test_headers_of_the_connection(client: httpx.Client, lines: bytes, status: int) -> None:
    assert asked(client, b"GET /capabilities HTTP/1.1\r\n" + lines + b"\r\n")[0] == status


def test_a_client_that_leaves_ends_the_request_at_work_whatever_waits_behind_it(serve: Serve) -> None:
    provider, app = scripted_app()
    with connect(serve(app).base_url, HEAD + b"\r\n" + GET + HEAD + b"\r\n"):
        assert provider.asked.wait(LONG)
    assert provider.cancelled.wait(LONG)


def test_a_refusal_is_not_the_answer_to_an_earlier_request(serve_file: Serve) -> None:
    bad = CHUNKED + b"\r\nno size\r\n"
    with connect(serve_file().base_url, HEAD + b"\r\n" + GET + bad) as connection:
        assert re.findall(rb"HTTP/1.1 (\d+)", read_all(connection)) == [b"200", b"404"]


def test_a_newcomer_without_a_place_gets_503_at_once(serve: Serve) -> None:
    provider, app = scripted_app()
    client = serve(app, ServerSettings(max_connections=1))
    with connect(client.base_url, GET):
        assert provider.asked.wait(LONG)
        status, body = asked(client)
        assert (status, body["error"]["code"]) == (503, "provider_unavailable")
        refused = client.get("/capabilities")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert provider.cancelled.wait(LONG)


@pytest.mark.parametrize("start", [b"", HEAD, POST + b"Content-Length: 100\r\n\r\n{"], ids=["silent", "head", "body"])
def test_the_connection_that_waits_longest_gives_way(serve_file: Serve, start: bytes) -> None:
    client = serve_file(max_connections_per_address=2)
    with connect(client.base_url, start) as oldest, connect(client.base_url, start) as newer:
        time.sleep(1.2 if b"POST" in start else 0.1)  # a body is given a second before it counts as slow
        assert httpx.get(client.base_url.join("/capabilities"), timeout=LONG).status_code == 200
        assert answer(oldest)[0] == 503
        newer.settimeout(0.2)
        with pytest.raises(TimeoutError):
            newer.recv(1)


def test_three_hundred_half_open_connections_lock_no_client_out(start: Start, tmp_path: Path) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256));"
        "from openproto.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    server = start(OPENPROTO_PATH=str(tmp_path / "memory.db"), command=[sys.executable, "-c", program, "serve"])
    with contextlib.ExitStack() as stack:
        for number in range(300):
            stack.enter_context(connect(server.url, (b"", HEAD, POST + b"Content-Length: 9\r\n\r\n{")[number % 3]))
        with httpx.Client(base_url=server.url, timeout=LONG, transport=httpx.HTTPTransport(retries=3)) as client:
            for _ in range(5):
                assert client.get("/memories", params={"user_id": "ada"}).status_code == 200
    said = server.stop()
    assert "closed to make room; 127 of at most 128 are open" in said
    assert len([line for line in said.splitlines() if "connections:" in line]) < 4


def test_leaving_in_the_middle_of_a_body_stores_nothing(client: httpx.Client) -> None:
    connect(client.base_url, POST + b'Content-Length: 100\r\n\r\n{"content": "tea", "user_id": "ada"}').close()
    assert client.get("/memories", params={"user_id": "ada"}).json() == {"items": []}


@pytest.mark.parametrize(("workers", "sent"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
async def test_no_acknowledged_write_is_lost(start: Start, tmp_path: Path, workers: str, sent: signal.Signals) -> None:
    path = tmp_path / "memory.db"
    server = await asyncio.to_thread(start, "--workers", workers, OPENPROTO_PATH=str(path))
    acknowledged: set[str] = set()

    async def write(client: httpx.AsyncClient, writer: int) -> None:
        for number in range(100_000):
            try:
                answer = await client.post("/memories", json={"content": f"{writer} {number}", "user_id": "ada"})
            except httpx.TransportError:
                return
            if answer.status_code != 201:
                assert answer.status_code == 503, answer.text
                return
            acknowledged.add(answer.json()["id"])

    async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as client:
        writers = [asyncio.create_task(write(client, number)) for number in range(8)]
        while len(acknowledged) < 100:
            assert not any(writer.done() for writer in writers)
            await asyncio.sleep(0.01)
        server.terminate(sent)
        await asyncio.gather(*writers)
    log = await asyncio.to_thread(server.stop)
    assert server.process.returncode == 0
    assert "Traceback" not in log
    async with AsyncMemory("sqlite", path=path, embedder="none") as memory:
        stored = {record.id async for record in memory.iter("ada", page_size=500)}
    assert acknowledged <= stored


@contextlib.asynccontextmanager
async def hanging(start: Start, deadline: str) -> AsyncIterator[tuple[Process, socket.socket, Any]]:
    """Yield a server, a connection whose request hangs there, and the one that has locked what it waits for."""
    database = lasting.postgres_url("test_connections")
    environment = {"OPENPROTO_PROVIDER": "postgres", "OPENPROTO_URL": database}
    server = await asyncio.to_thread(start, "--shutdown-timeout", deadline, **environment)
    locker = await asyncpg.connect(database)
    await locker.execute("BEGIN; LOCK TABLE openproto.memories")
    with connect(server.url, b"DELETE /memories?user_id=ada HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
        await asyncio.sleep(0.5)
        yield server, connection, locker
    assert "Traceback" not in await asyncio.to_thread(server.stop)
    await locker.close()
    assert server.process.returncode == 0


async def test_a_request_that_runs_is_finished_before_the_end(start: Start) -> None:
    async with hanging(start, "10") as (server, connection, locker):
        server.terminate()
        await asyncio.sleep(0.5)
        with pytest.raises(OSError):
            connect(server.url)
        await locker.close()
        assert b'{"deleted":0}' in await asyncio.to_thread(read_all, connection)


@pytest.mark.parametrize("hurried", [False, True], ids=["in time", "before a second Ctrl-C"])
async def test_what_does_not_finish_is_answered(start: Start, hurried: bool) -> None:
    async with hanging(start, "600" if hurried else "1") as (server, connection, _):
        server.terminate(signal.SIGINT if hurried else signal.SIGTERM)
        if hurried:
            await asyncio.sleep(0.5)
            os.kill(server.process.pid, signal.SIGINT)
        head, _, body = (await asyncio.to_thread(read_all, connection)).partition(b"\r\n\r\n")
        assert b" 503 " in head.partition(b"\r\n")[0]
        assert json.loads(body)["error"]["code"] == "provider_unavailable"
