"""Blocking HTTP calls that are cancelled: wherever their thread waits, it is free again at once."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from waiting import until

from openproto.blocking.threads import Threads
from openproto.errors import ProviderUnavailableError

WITHIN = 20.0
"""Seconds after a cancellation in which its thread must be free; what is not cut lasts three times as long."""


PEM = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


class Server:
    """An HTTP server on a real socket whose paths say how it behaves; counts requests, and connections by their end."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self.gone = 0
        self._release = asyncio.Event()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Self]:
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            self._release.set()
            listening.close()
            await until(lambda: not [t for t in asyncio.all_tasks() if "Server.serve" in repr(t)])

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


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server().running() as server:
        yield server


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    """One thread, so that one that is stuck would be missed."""
    pool = Threads(1, "one-thread")
    yield pool
    pool.close()


@pytest.fixture
def http(threads: Threads) -> httpx.Client:
    return threads.http_client(timeout=60.0)


async def cancel(call: asyncio.Task[Any]) -> None:
    call.cancel()
    async with asyncio.timeout(WITHIN):
        with pytest.raises(asyncio.CancelledError):
            await call


async def ensure_free(threads: Threads) -> None:
    async with asyncio.timeout(WITHIN):
        await threads(int)


async def cut(call: asyncio.Task[Any], threads: Threads, reached: Callable[[], object], settle: float = 0.0) -> None:
    """Cancel a call once `reached` holds, and some time has passed; its thread must be free at once."""
    await until(reached)
    await asyncio.sleep(settle)
    assert not call.done()
    await cancel(call)
    await ensure_free(threads)


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
@pytest.mark.parametrize(("path", "sent", "settle"), [("/hang", 0, 0), ("/drip", 0, 0), ("/deaf", 50_000_000, 0.1)])
async def test_a_call_that_sends_or_waits_for_its_answer_is_cut(
    server: Server, threads: Threads, http: httpx.Client, path: str, sent: int, settle: float
) -> None:
    call = asyncio.create_task(threads(http.post, server.url + path, content=bytes(sent)))
    await cut(call, threads, lambda: server.requests[path], settle)
    await until(lambda: sent or server.gone == 1)


async def test_a_reused_connection_is_cut(server: Server, threads: Threads, http: httpx.Client) -> None:
    for _ in range(3):
        assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    assert server.connections == 1, "the connection was not kept alive"
    call = asyncio.create_task(threads(http.get, server.url + "/hang"))
    await cut(call, threads, lambda: server.requests["/hang"])
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    assert server.connections == 2


async def test_connecting_is_cut(server: Server, threads: Threads, http: httpx.Client) -> None:
    with full_backlog() as url:
        await cut(asyncio.create_task(threads(http.get, url)), threads, lambda: True, 0.1)
    async with Server().running() as mute:
        call = asyncio.create_task(threads(http.get, mute.url.replace("http:", "https:") + "/hang"))
        await cut(call, threads, lambda: mute.connections, 0.05)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_calls_over_tls_are_cut_too(threads: Threads) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with Server().running(context) as server:
        http = threads.http_client(timeout=60.0, verify=ssl.create_default_context(cafile=str(PEM)))
        for path in ("/hang", "/drip"):
            assert (await threads(http.get, server.url + "/ok")).text == "/ok"
            call = asyncio.create_task(threads(http.get, server.url + path))
            await cut(call, threads, lambda path=path: server.requests[path], 0.02)
        strict = threads.http_client(timeout=60.0)
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await threads(strict.get, server.url + "/ok")
        threads.close()


async def test_connecting_and_reading_keep_their_timeouts_and_errors(server: Server, threads: Threads) -> None:
    http = threads.http_client(timeout=0.2)
    with full_backlog() as url, pytest.raises(httpx.ConnectTimeout):
        await threads(http.get, url)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(httpx.ConnectError, match="refused"):
        await threads(http.get, f"http://127.0.0.1:{port}/")
    with pytest.raises(httpx.ConnectError):
        await threads(http.get, "http://no-such-host.invalid/")
    with pytest.raises(httpx.ReadTimeout):
        await threads(http.get, server.url + "/hang")
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_nothing_is_sent_after_a_name_lookup(
    server: Server, threads: Threads, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
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


async def test_a_cancelled_call_sends_no_second(server: Server, threads: Threads, http: httpx.Client) -> None:
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


async def test_an_abortion_never_reaches_another_call(server: Server) -> None:
    """Many calls over few threads and connections, cancelled at moments that cover every step of a call."""
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

    for start in range(0, 1500, 12):
        await asyncio.gather(*(one(n) for n in range(start, start + 12)))
    assert 100 < cancelled < 800, "the moments do not cover both ends of a call"
    threads.close()
    await until(lambda: server.gone == server.connections)


async def test_proxies_of_the_environment_are_used_and_cut(
    server: Server, threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    http = threads.http_client(timeout=60.0)
    call = asyncio.create_task(threads(http.get, "http://vendor.invalid/hang"))
    await cut(call, threads, lambda: server.requests["http://vendor.invalid/hang"])
