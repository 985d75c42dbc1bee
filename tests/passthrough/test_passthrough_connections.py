"""The connections: bounded, kept, cut when a call is cancelled; the options that lead to them, and their secrets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.passthrough import Passthrough, transport
from raw_server import RECORD, RawServer, Request, always, answer, never, refusal
from waiting import until

from openproto import AsyncMemory, OpenProtoError, ProviderError, ProviderTimeoutError, ProviderUnavailableError

PEM = Path(__file__).parent / "localhost.pem"
KEY = "correct-horse-battery"


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


BROKEN_OFF = (b"", b"HTTP/1.1 200 OK\r\ncontent-le", b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{")
OTHERS = (b"220 smtp.example.com ESMTP\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x16" * 20 + b"\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "resets", "kind", "says"),
    [
        *((sent, resets, ProviderUnavailableError, "was lost") for sent in BROKEN_OFF for resets in (False, True)),
        *((sent, False, ProviderError, "not HTTP") for sent in OTHERS),
    ],
)
async def test_broken_answers_are_named(sent: bytes, resets: bool, kind: type[ProviderError], says: str) -> None:
    async def handle(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await writer.drain()
        if resets:
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()

    async with RawServer(handle) as server, server.client() as client:
        with pytest.raises(kind, match=says):
            await client.get("1")


async def test_where_no_server_can_be_is_named_at_entry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = f"127.0.0.1:{listener.getsockname()[1]}"
    for host, kind, says in (
        (closed, ProviderUnavailableError, f"{closed}: no connection: nothing listens there"),
        ("no-such-host.invalid", ProviderUnavailableError, "the host's name is not known"),
        *((host, ProviderError, "base_url=") for host in ("a..b", ".", "ü..invalid", "a" * 64 + ".invalid")),
    ):
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


async def half(request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(RECORD)[:-5])
    await never(request, writer)


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


BAD_URLS = """memory.example.com ftp://h http:// http://:80 http://h:99999 http://h:0 http://[::1 http://h?q=1 http://h#x
 http://ann:hunter2@host https://hunter2@host/x http://ann:hunter2@host:99999 x://a:hunter2@h""".split()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *(({"base_url": url}, "base_url") for url in ("", "http://host/a b", "http://host\r\nX: y", *BAD_URLS)),
        *(({"api_key": key}, "api_key") for key in ("", "two hunter2", "hunter2\r\nX: 1", "hunter2ü", "hunter2\t")),
        ({"max_connections": 0}, "max_connections"),
    ],
)
def test_an_option_that_means_nothing_is_refused_when_the_client_is_made(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        AsyncMemory("passthrough", **{"base_url": "http://host", **options})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_name_that_is_looked_up_without_end_holds_up_no_exit(run_python: Any) -> None:
    program = """
import asyncio, socket, time
from openproto import AsyncMemory, ProviderTimeoutError
socket.getaddrinfo = lambda *args, **kwargs: time.sleep(600)
async def main():
    try:
        async with AsyncMemory("passthrough", base_url="http://slow.invalid", timeout=1):
            pass
    except ProviderTimeoutError:
        print("timed out")
asyncio.run(main())
"""
    done = run_python(program)
    assert (done.stdout, done.stderr) == ("timed out\n", "")


async def test_the_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Not even where the server puts it into the words of its refusal."""
    caplog.set_level(0)
    shown: list[str] = []
    async with RawServer(always(refusal("forbidden_key", 403, f"the key {KEY} is not allowed"))) as server:
        client = server.client(api_key=KEY)
        shown.append(repr(client._session.provider))
        async with client:
            for call in (client.get("1"), client.search("tea", "ann")):
                with pytest.raises(OpenProtoError, match="is not allowed") as caught:
                    await call
                shown += [str(caught.value), repr(caught.value), repr(caught.value.to_envelope())]
            shown += [repr(client), repr(await client.health()), repr(await client._session.provider.describe())]
        assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}".encode()}
        assert KEY not in "".join(shown) + caplog.text
        async with server.client() as client:
            with pytest.raises(OpenProtoError):
                await client.get("1")
        assert "authorization" not in server.requests[-1].headers
