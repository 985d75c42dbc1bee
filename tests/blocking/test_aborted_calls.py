"""Blocking HTTP calls that are cancelled: wherever their thread waits, it is free again at once."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from waiting import until

from openproto import Memory, MemoryRecord, Provider, ProviderTimeoutError
from openproto.blocking.threads import Threads
from openproto.errors import ProviderUnavailableError
from openproto.requests import RecordRef

WITHIN = 20.0
"""Seconds after a cancellation in which its thread must be free; what is not cut lasts three times as long."""

RunPython = Callable[..., "subprocess.CompletedProcess[str]"]


class Server:
    """An HTTP server on a real socket whose paths say how it behaves; counts requests, and connections by their end."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.gone = 0
        self.url = ""
        self._release = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                path = head.split()[1].decode()
                self.requests[path] += 1
                await self._answer(path, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone += 1
        finally:
            writer.close()

    async def _answer(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, kind, *rest = path.split("/")
        body = path.encode()
        if kind == "delay":
            await asyncio.sleep(float(rest[0]))
        elif kind == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
            raise ConnectionError
        elif kind not in ("ok", "deaf"):
            await reader.read()  # never answers, and notices that the client has gone
            raise ConnectionError
        elif kind == "deaf":  # does not read what is sent either
            await self._release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


@asynccontextmanager
async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    port = listening.sockets[0].getsockname()[1]
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
    try:
        yield server
    finally:
        server._release.set()
        listening.close()
        await until(lambda: not [t for t in asyncio.all_tasks() if "Server.serve" in repr(t)])


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as server:
        yield server


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """One thread, so that one that is stuck would be missed."""
    pool = Threads(1, "one-thread")
    yield pool
    pool.close()


async def cancel(call: asyncio.Task[Any]) -> None:
    call.cancel()
    async with asyncio.timeout(WITHIN):
        with pytest.raises(asyncio.CancelledError):
            await call


async def ensure_free(threads: Threads) -> None:
    async with asyncio.timeout(WITHIN):
        await threads(int)


@contextmanager
def full_backlog() -> Iterator[str]:
    """Yield the URL of a socket that listens and never accepts: connecting to it hangs."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
            waiting.append(client)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        for client in waiting:
            client.close()


@pytest.mark.promise(14)
@pytest.mark.parametrize("path", ["/hang", "/drip"])
async def test_a_call_that_waits_for_its_answer_is_cut(server: Server, threads: Threads, path: str) -> None:
    http = threads.http_client(timeout=60.0)
    call = asyncio.create_task(threads(http.get, server.url + path))
    await until(lambda: server.requests[path])
    await cancel(call)
    await ensure_free(threads)
    await until(lambda: server.gone == 1)


async def test_a_call_that_is_sending_is_cut(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)
    call = asyncio.create_task(threads(http.post, server.url + "/deaf", content=bytes(50_000_000)))
    await until(lambda: server.requests["/deaf"])
    await asyncio.sleep(0.1)
    await cancel(call)
    await ensure_free(threads)


async def test_a_call_over_a_reused_connection_is_cut_and_the_next_one_gets_a_new_connection(
    server: Server, threads: Threads
) -> None:
    http = threads.http_client(timeout=60.0)
    for _ in range(3):
        assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    assert server.connections == 1, "the connection was not kept alive"
    call = asyncio.create_task(threads(http.get, server.url + "/hang"))
    await until(lambda: server.requests["/hang"])
    assert server.connections == 1
    await cancel(call)
    await ensure_free(threads)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    assert server.connections == 2


async def test_a_call_that_is_connecting_is_cut(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)
    with full_backlog() as url:
        call = asyncio.create_task(threads(http.get, url))
        await asyncio.sleep(0.1)
        assert not call.done(), "the connection was made, so the test tries nothing"
        await cancel(call)
        await ensure_free(threads)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_connecting_keeps_its_timeout_and_its_errors(threads: Threads) -> None:
    http = threads.http_client(timeout=0.2)
    with full_backlog() as url, pytest.raises(httpx.ConnectTimeout):
        await threads(http.get, url)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(httpx.ConnectError) as caught:
        await threads(http.get, f"http://127.0.0.1:{port}/")
    assert "refused" in str(caught.value)
    with pytest.raises(httpx.ConnectError):
        await threads(http.get, "http://no-such-host.invalid/")


async def test_reading_keeps_its_timeout(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=0.1)
    with pytest.raises(httpx.ReadTimeout):
        await threads(http.get, server.url + "/hang")
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_a_name_lookup_cannot_be_cut_and_nothing_is_sent_after_it(
    server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    http = threads.http_client(timeout=60.0)
    asked, answer = threading.Event(), threading.Event()
    lookup = socket.getaddrinfo

    def slow(*args: Any, **kwargs: Any) -> Any:
        asked.set()
        answer.wait(10)
        return lookup(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    call = asyncio.create_task(threads(http.get, server.url + "/ok"))
    await until(asked.is_set)
    await cancel(call)
    answer.set()
    await ensure_free(threads)
    assert not server.requests


async def test_a_call_cancelled_between_its_requests_does_not_start_the_next(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)
    between, go_on = threading.Event(), threading.Event()

    def two_requests() -> None:
        http.get(server.url + "/ok")
        between.set()
        go_on.wait(10)
        http.get(server.url + "/ok/second")

    call = asyncio.create_task(threads(two_requests))
    await until(between.is_set)
    await cancel(call)
    go_on.set()
    await ensure_free(threads)
    assert server.requests == {"/ok": 1}
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_no_retry_loop_of_an_sdk_catches_the_abortion(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)

    def with_retries() -> None:
        for _ in range(100):
            try:
                http.get(server.url + "/hang")
            except Exception:
                time.sleep(0.2)

    call = asyncio.create_task(threads(with_retries))
    await until(lambda: server.requests["/hang"])
    await cancel(call)
    await ensure_free(threads)
    assert server.requests["/hang"] == 1


async def test_an_anyio_scope_cuts_too(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)
    with anyio.move_on_after(0.1) as scope:
        await threads(http.get, server.url + "/hang")
    assert scope.cancelled_caught
    assert server.requests["/hang"] == 1
    await ensure_free(threads)


async def test_closing_cuts_what_runs_and_closes_the_client(server: Server) -> None:
    threads = Threads(2, "closing")
    http = threads.http_client(timeout=60.0)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    calls = [asyncio.create_task(threads(http.get, f"{server.url}/hang/{n}")) for n in range(4)]
    await until(lambda: server.requests.total() == 3)
    threads.close()
    async with asyncio.timeout(WITHIN):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ProviderUnavailableError] * 4
    assert http.is_closed
    await until(lambda: server.gone == server.connections)
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("closing")])
    assert server.requests.total() == 3, "a call that was waiting has run"


@pytest.mark.promise(86)
async def test_a_storm_of_cancelled_calls_leaves_a_free_pool(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    threads = Threads(8, "storm")
    http = threads.http_client(timeout=60.0)
    calls = [asyncio.create_task(threads(http.get, f"{server.url}/hang/{n}")) for n in range(100)]
    await until(lambda: server.requests.total() == 8)
    most = sum(thread.name.startswith("storm") for thread in threading.enumerate())
    for call in calls:
        call.cancel()
    async with asyncio.timeout(WITHIN):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
        assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    assert most == 8
    assert server.requests.total() == 9, "a call that was cancelled in the queue has run"
    own = [record for record in caplog.records if record.name.startswith(("openproto", "asyncio"))]
    await until(lambda: len([r for r in caplog.records if "cancelled call ended" in r.getMessage()]) == 8)
    assert {record.levelno for record in own} <= {logging.DEBUG}
    threads.close()


async def test_cancelling_some_of_many_leaves_the_others_alone(server: Server) -> None:
    threads = Threads(8, "mixed")
    http = threads.http_client(timeout=60.0)
    calls = [
        asyncio.create_task(threads(http.get, f"{server.url}/{'hang' if n % 2 else 'delay'}/0.05/{n}"))
        for n in range(60)
    ]
    while pending := [call for n, call in enumerate(calls) if n % 2 and not call.done()]:
        await asyncio.sleep(0.02)
        pending[0].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for n, outcome in enumerate(outcomes):
        if n % 2:
            assert isinstance(outcome, asyncio.CancelledError)
        else:
            assert isinstance(outcome, httpx.Response)
            assert outcome.text == f"/delay/0.05/{n}"
    threads.close()


async def test_an_abortion_never_reaches_another_call(server: Server) -> None:
    """Thousands of calls over few threads and connections, cancelled at moments that cover every step of a call."""
    chance = random.Random(7)
    threads = Threads(4, "hammer")
    http = threads.http_client(timeout=60.0)
    cancelled = 0

    async def one(n: int) -> None:
        nonlocal cancelled
        path = f"/delay/{chance.choice([0, 0, 0.0005, 0.002])}/{n}"
        call = asyncio.create_task(threads(http.get, server.url + path))
        if chance.random() < 0.5:
            await asyncio.wait([call], timeout=chance.random() * 0.01)
            call.cancel()
        try:
            assert (await call).text == path
        except asyncio.CancelledError:
            cancelled += 1

    for start in range(0, 3000, 12):
        await asyncio.gather(*(one(n) for n in range(start, start + 12)))
    assert 200 < cancelled < 1600, "the moments do not cover both ends of a call"
    threads.close()
    await until(lambda: server.gone == server.connections)


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=openproto-test"
    key = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path) + ".key", "-out", str(path)]
    subprocess.run([*command.split(), *key], check=True, capture_output=True)
    return path


async def test_calls_over_tls_are_cut_too(certificate: Path, threads: Threads) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, str(certificate) + ".key")
    async with serving(context) as server:
        http = threads.http_client(timeout=60.0, verify=ssl.create_default_context(cafile=str(certificate)))
        assert (await threads(http.get, server.url + "/ok")).text == "/ok"
        for path in ("/hang", "/drip"):
            call = asyncio.create_task(threads(http.get, server.url + path))
            await until(lambda path=path: server.requests[path])
            await asyncio.sleep(0.02)
            await cancel(call)
            await ensure_free(threads)
            assert (await threads(http.get, server.url + "/ok")).text == "/ok"
        strict = threads.http_client(timeout=60.0)
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await threads(strict.get, server.url + "/ok")
        threads.close()


async def test_a_call_in_its_tls_handshake_is_cut(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=60.0)
    async with serving() as mute:
        call = asyncio.create_task(threads(http.get, mute.url.replace("http:", "https:") + "/hang"))
        await until(lambda: mute.connections)
        await asyncio.sleep(0.05)
        await cancel(call)
        await ensure_free(threads)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_proxies_of_the_environment_are_used_and_cut(
    server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    http = threads.http_client(timeout=60.0)
    call = asyncio.create_task(threads(http.get, "http://vendor.invalid/hang"))
    await until(lambda: server.requests["http://vendor.invalid/hang"])
    await cancel(call)
    await ensure_free(threads)


async def test_the_letta_sdk_is_cut_and_does_not_retry(server: Server, threads: Threads) -> None:
    from letta_client import Letta

    def connect() -> Letta:
        return Letta(base_url=server.url, api_key="key", http_client=threads.http_client(timeout=60.0), max_retries=3)

    client = await threads(connect)
    await _cut_sdk_call(server, threads, lambda: threads(client.archives.create, name="a"))


async def test_the_supermemory_sdk_is_cut_and_does_not_retry(server: Server, threads: Threads) -> None:
    from supermemory import Supermemory

    def connect() -> Supermemory:
        http = threads.http_client(timeout=60.0)
        return Supermemory(base_url=server.url, api_key="key", httpx_client=http, max_retries=3)

    client = await threads(connect)
    await _cut_sdk_call(server, threads, lambda: threads(client.add, "ann", content="tea"))


async def _cut_sdk_call(server: Server, threads: Threads, make: Callable[[], Awaitable[Any]]) -> None:
    async def run() -> None:
        await make()

    for n in (1, 2):
        call = asyncio.create_task(run())
        await until(lambda n=n: server.requests.total() == n)
        await asyncio.sleep(0.02)
        await cancel(call)
        await ensure_free(threads)
    await asyncio.sleep(0.3)
    assert server.requests.total() == 2, "the SDK has tried again"


class OverHttp(Provider):
    """Reads records over HTTP by a blocking client in one thread."""

    name = "over-http"
    cancellation = "aborting"

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self) -> None:
        self._threads = Threads(1, "over-http")
        self._http = await self._threads(self._threads.http_client, timeout=60.0)

    async def close(self) -> None:
        self._threads.close()

    async def get(self, ref: RecordRef) -> MemoryRecord:
        response = await self._threads(self._http.get, f"{self._url}/{ref.id}")
        return MemoryRecord.model_validate(
            {"id": ref.id, "content": response.text, "user_id": "ann", "created_at": "2026-01-01T00:00:00Z"}
        )


async def test_the_synchronous_client_frees_its_thread_too(server: Server) -> None:
    def use() -> float:
        with Memory(OverHttp(server.url), timeout=0.3, retries=0) as memory:
            with pytest.raises(ProviderTimeoutError):
                memory.get("hang")
            started = time.perf_counter()
            assert memory.get("ok").content == "/ok"
            return time.perf_counter() - started

    assert await asyncio.to_thread(use) < WITHIN


def test_a_stuck_thread_does_not_keep_the_interpreter_from_exiting(run_python: RunPython) -> None:
    program = """
import asyncio, time
from openproto.requests import RecordRef
from openproto.blocking.threads import Threads

async def main():
    threads = Threads(2, "stuck")
    calls = [asyncio.create_task(threads(time.sleep, 60)) for _ in range(3)]
    await asyncio.sleep(0.1)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    threads.close()

asyncio.run(main())
print("done", flush=True)
"""
    told = run_python(program)  # which waits for half as long as the threads sleep
    assert (told.stdout, told.stderr, told.returncode) == ("done\n", "", 0)


def test_importing_the_pool_does_not_import_httpx(run_python: RunPython) -> None:
    told = run_python("import sys, openproto.blocking.threads; print('httpx' in sys.modules, 'ssl' in sys.modules)")
    assert told.stdout.split()[0] == "False", told.stderr
