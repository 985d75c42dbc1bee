"""The sockets: bounded, kept, cut when a call is cancelled, and no dripping answer outlives the client's timeout."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.passthrough import Passthrough, transport
from raw_server import RECORD, RawServer, Request, always, answer, never
from waiting import until

from openproto import AsyncMemory, ProviderError, ProviderTimeoutError, ProviderUnavailableError

PEM = Path(__file__).parent / "localhost.pem"


@pytest.mark.promise(16)
@pytest.mark.parametrize("where", ["head", "body", "opening"])
async def test_a_drip_does_not_outlive_the_timeout(where: str) -> None:
    """Each byte comes soon enough for any timeout of a single read; the whole never would."""
    whole = answer({**RECORD, "content": "x" * 1000})

    async def drip(request: Request, writer: asyncio.StreamWriter) -> None:
        head = whole.index(b"{") if where == "body" else 0
        writer.write(whole[:head])
        for byte in whole[head:]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async with RawServer(drip, capabilities=b"" if where == "opening" else None) as server:
        client = server.client(timeout=0.5)
        async with asyncio.timeout(20):  # the whole answer takes a minute
            with pytest.raises(ProviderTimeoutError):
                await client.get("1")
        await client.close()
        await until(lambda: server.open == 0)


@pytest.mark.promise(18, 19, 122)
async def test_calls_in_a_row_use_one_connection_until_it_was_idle_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    assert transport.KEEP_ALIVE < 5.0, "common servers close after 5 s"
    monkeypatch.setattr(transport, "KEEP_ALIVE", 0.2)
    async with RawServer(always(answer(RECORD))) as server, server.client() as client:
        for _ in range(20):
            await client.get("1")
        assert server.connections == 1
        await asyncio.sleep(0.5)
        await client.get("1")
    assert server.connections == 2


def _losing(times: int) -> Callable[[Request, asyncio.StreamWriter], Awaitable[bytes | None]]:
    """Close the connection in place of the answers to the first `times` requests, as a server may at any time."""
    left = [None] * times
    answers = {
        "POST /memories": answer(RECORD, 201),
        "POST /memories/batch": answer({"outcomes": [{"status": 201, "memory": RECORD}] * 2}, 207),
        "GET /memories/1": answer(RECORD),
        "GET /healthz": answer({"status": "ok"}),
    }

    async def handle(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        return left.pop() if request.target != "/healthz" and left else answers[request.route]

    return handle


@pytest.mark.parametrize(
    ("call", "safe"),
    [
        (lambda c: c.get("1"), True),
        (lambda c: c.add("tea", user_id="ann"), True),
        (lambda c: c.add_many([{"content": "tea", "user_id": "ann"}] * 2), True),
        (lambda c: c.delete("1"), False),
        (lambda c: c.delete_all("ann"), False),
        (lambda c: c.update("1", content="x"), False),
    ],
    ids=["get", "add", "add_many", "delete", "delete_all", "update"],
)
async def test_a_call_is_repeated_on_a_lost_connection_where_it_is_safe_and_only_there(call: Any, safe: bool) -> None:
    """Not by the HTTP library behind the client either, which would repeat a DELETE."""
    async with RawServer(_losing(1)) as server, server.client(retries=2) as client:
        await client.health()
        if not safe:
            with pytest.raises(ProviderUnavailableError, match="may or may not have happened"):
                await call(client)
            assert len(server.requests) == 2
            return
        found = await call(client)
    assert {each.id for each in (found if isinstance(found, list) else [found])} == {"1"}
    _, first, second = server.requests
    assert (first.target, first.body, first.headers) == (second.target, second.body, second.headers)
    assert ("idempotency-key" in first.headers) == (first.route == "POST /memories")


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{"]
)
@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_an_answer_that_breaks_off_is_unavailable(sent: bytes, ending: str) -> None:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        if ending == "reset":
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async with RawServer(handle) as server, server.client() as client:
        with pytest.raises(ProviderUnavailableError, match="connection was lost"):
            await client.get("1")


@pytest.mark.parametrize(
    "reply", [b"220 smtp.example.com ESMTP\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16" * 20 + b"\r\n\r\n"]
)
async def test_what_does_not_speak_http_is_a_provider_error(reply: bytes) -> None:
    async with RawServer(always(reply)) as server, server.client() as client:
        with pytest.raises(ProviderError, match="not HTTP"):
            await client.get("1")


@pytest.mark.parametrize(
    ("host", "kind", "says"),
    [
        ("no-such-host.invalid", ProviderUnavailableError, "the host's name is not known"),
        *((host, ProviderError, "base_url=") for host in ("a..b", ".", "ü..invalid", "a" * 64 + ".invalid")),
    ],
)
async def test_a_host_that_is_not_known_or_not_a_name_is_named(host: str, kind: type[ProviderError], says: str) -> None:
    provider = Passthrough(f"http://{host}")
    with pytest.raises(kind, match=says):
        await provider.open()
    await provider.close()


async def test_tls_is_spoken_with_a_server_that_is_trusted_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # the server's side of the refused handshake
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(PEM)
    async with RawServer(always(answer(RECORD)), tls=tls) as server:
        with pytest.raises(ProviderUnavailableError, match="the TLS certificate is not trusted here"):
            await server.client().capabilities()
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
        async with server.client() as client:
            assert (await client.get("1")).id == "1"


async def test_https_where_http_is_spoken_is_named() -> None:
    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", 400))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = AsyncMemory("passthrough", base_url=f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(ProviderUnavailableError, match="TLS could not be agreed on"):
            await client.capabilities()


async def half(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(RECORD)[:-5])
    await never(request, writer)


@pytest.mark.promise(14)
@pytest.mark.parametrize("handle", [never, half], ids=["before the answer", "within the answer"])
async def test_a_cancelled_call_is_cut_and_the_server_sees_it(handle: Any) -> None:
    async with RawServer(handle) as server, server.client(max_connections=2) as client:
        calls = [asyncio.ensure_future(client.get("1")) for _ in range(2)]
        await until(lambda: len(server.requests) == 2)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        assert all(call.cancelled() for call in calls)
        await until(lambda: server.open == 0, 5)
        server._handle = always(answer(RECORD))
        assert await asyncio.gather(*(client.get("1") for _ in range(10)))
        assert server.most == 2


async def test_a_cookie_is_not_sent_back() -> None:
    async with RawServer(always(answer(RECORD, set_cookie="session=ann; Path=/"))) as server:
        named = f"http://localhost:{server.port}"  # of an address, no cookie would be kept anyway
        async with AsyncMemory("passthrough", base_url=named) as client:
            await client.get("1")
            await client.get("1")
    assert len(server.requests) == 2
    assert not any("cookie" in request.headers for request in server.requests)
