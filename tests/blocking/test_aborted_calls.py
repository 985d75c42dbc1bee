"""Blocking HTTP calls that are cancelled: wherever their thread waits, it is free again at once."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from raw_server import RawServer, Request, answer, never
from waiting import until

from openproto.blocking.threads import Threads
from openproto.errors import ProviderUnavailableError

WITHIN = 20.0
"""Seconds after a cancellation in which its thread must be free; what is not cut lasts three times as long."""


PEM = Path(__file__).parents[1] / "passthrough" / "localhost.pem"


async def behave(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
    _, kind, *rest = httpx.URL(request.target).path.split("/")
    if kind == "delay":
        await asyncio.sleep(float(rest[0]))
    elif kind == "drip":
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)
    elif kind == "hang":
        await never(request, writer)
    return answer(request.target.encode())


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer(behave) as server:
        yield server


def asked(server: RawServer, path: str) -> Callable[[], bool]:
    return lambda: any(request.target.endswith(path) for request in server.requests)


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


@pytest.mark.parametrize("tls", [False, True])
async def test_a_waiting_call_is_cut(threads: Threads, tls: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    async with RawServer(behave, tls=context if tls else None) as server:
        http = threads.http_client(timeout=60.0, verify=ssl.create_default_context(cafile=str(PEM)))
        for path in ("/hang", "/drip"):
            assert (await threads(http.get, server.url + "/ok")).text == "/ok"
            call = asyncio.create_task(threads(http.post, server.url + path))
            await cut(call, threads, asked(server, path), 0.02 if tls else 0.0)
            await until(lambda: server.open == 0)
        if tls:
            strict = threads.http_client(timeout=60.0)
            with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
                await threads(strict.get, server.url + "/ok")
        threads.close()


async def test_a_call_that_sends_what_nobody_reads_is_cut(threads: Threads, http: httpx.Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        await cut(asyncio.create_task(threads(http.post, url, content=bytes(50_000_000))), threads, lambda: True, 0.2)


async def test_connecting_is_cut(server: RawServer, threads: Threads, http: httpx.Client) -> None:
    with full_backlog() as url:
        await cut(asyncio.create_task(threads(http.get, url)), threads, lambda: True, 0.1)
    async with RawServer(behave) as mute:
        call = asyncio.create_task(threads(http.get, mute.url.replace("http:", "https:") + "/hang"))
        await cut(call, threads, lambda: mute.connections, 0.05)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_connecting_and_reading_keep_their_timeouts_and_errors(server: RawServer, threads: Threads) -> None:
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
    server: RawServer, threads: Threads, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
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


async def test_a_cancelled_call_sends_no_second(server: RawServer, threads: Threads, http: httpx.Client) -> None:
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
    assert [request.target for request in server.requests] == ["/ok"]
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"


async def test_closing_cuts_what_runs_and_closes_the_client(server: RawServer) -> None:
    threads = Threads(2, "closing")
    http = threads.http_client(timeout=60.0)
    assert (await threads(http.get, server.url + "/ok")).text == "/ok"
    calls = [asyncio.create_task(threads(http.get, f"{server.url}/hang/{n}")) for n in range(4)]
    await until(lambda: len(server.requests) == 3)
    threads.close()
    async with asyncio.timeout(WITHIN):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ProviderUnavailableError] * 4
    assert http.is_closed
    await until(lambda: server.open == 0)
    await until(lambda: not [t for t in threading.enumerate() if t.name.startswith("closing")])
    assert len(server.requests) == 3, "a call that was waiting has run"


async def test_an_abortion_never_reaches_another_call(server: RawServer) -> None:
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
    await until(lambda: server.open == 0)


async def test_proxies_are_used_and_cut(server: RawServer, threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    http = threads.http_client(timeout=60.0)
    call = asyncio.create_task(threads(http.get, "http://vendor.invalid/hang"))
    await cut(call, threads, asked(server, "vendor.invalid/hang"))
