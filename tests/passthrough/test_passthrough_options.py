"""The options of passthrough: checked when it is made, without I/O, and no secret is repeated anywhere."""

from __future__ import annotations

import copy
import socket
from typing import Any

import pytest
from openproto_adapters.passthrough import Passthrough
from raw_server import CAPABILITIES, RECORD, RawServer, always, answer, refusal
from waiting import until

from openproto import AsyncMemory, OpenProtoError, ProviderUnavailableError

KEY = "correct-horse-battery"


@pytest.mark.parametrize(
    "url",
    [
        *("", "http://host/a b", "http://host\r\nX: y"),
        *"memory.example.com ftp://h http:// http://:80 http://h:99999 http://h:0 http://[::1 http://h?q=1 http://h#x".split(),
    ],
)
def test_what_is_not_a_base_url_is_refused_when_the_client_is_made(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        AsyncMemory("passthrough", base_url=url)


@pytest.mark.parametrize(
    "url", ["http://ann:hunter2@host", "https://hunter2@host/x", "http://ann:hunter2@host:99999", "x://a:hunter2@h"]
)
def test_a_password_in_the_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as caught:
        Passthrough(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("key", ["", "two words", "line\r\nX-Evil: 1", "schlüssel", "tab\t", "nul\0"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Passthrough("http://host", api_key=key)
    assert not key or key not in str(caught.value)
    with pytest.raises(ValueError, match="max_connections"):
        Passthrough("http://host", max_connections=0)


def test_a_name_that_is_looked_up_without_end_holds_up_no_exit(run_python: Any) -> None:
    program = """
import asyncio, socket, time
from openproto import AsyncMemory, ProviderTimeoutError
socket.getaddrinfo = lambda *args, **kwargs: time.sleep(600)
async def main():
    try:
        async with AsyncMemory("passthrough", base_url="http://slow.invalid", timeout=3):
            pass
    except ProviderTimeoutError:
        print("timed out")
asyncio.run(main())
"""
    done = run_python(program)
    assert (done.stdout, done.stderr) == ("timed out\n", "")


def test_constructing_imports_no_http_library_and_opening_imports_off_the_loop(run_python: Any) -> None:
    """In a new process, where the libraries are not imported yet: whatever imports them runs off the main thread."""
    program = """
import asyncio, builtins, sys, threading
from openproto import AsyncMemory, ProviderUnavailableError
seen, importing = set(), builtins.__import__
def watched(name, *rest):
    if name in ("aiohttp", "httpx", "ssl"):
        seen.add((name, threading.current_thread() is threading.main_thread()))
    return importing(name, *rest)
async def main():
    memory = AsyncMemory("passthrough", base_url="https://127.0.0.1:1")
    assert not {"httpx", "aiohttp", "httpx_aiohttp"} & set(sys.modules)
    builtins.__import__ = watched
    try:
        await memory.capabilities()
    except ProviderUnavailableError:
        pass
    await memory.close()
    assert ("aiohttp", False) in seen and ("httpx", False) in seen, seen
    assert ("aiohttp", True) not in seen and ("httpx", True) not in seen, seen
asyncio.run(main())
"""
    done = run_python(program)
    assert done.returncode == 0, done.stderr


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


@pytest.mark.promise(110)
async def test_a_server_that_is_not_there_is_named_at_entry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ProviderUnavailableError, match=f"{url}: no connection: nothing listens there") as caught:
        async with AsyncMemory("passthrough", base_url=url, retries=0):
            pass
    assert caught.value.__cause__ is not None


async def test_a_failed_opening_is_repeated_by_the_next_call_and_a_closed_provider_opens_again() -> None:
    async with RawServer(always(answer(RECORD)), capabilities=refusal("provider_unavailable", 503)) as server:
        client = server.client()
        with pytest.raises(ProviderUnavailableError):
            await client.get("1")
        server.capabilities = answer(CAPABILITIES)
        assert (await client.get("1")).id == "1"
        await client.close()
        await until(lambda: server.open == 0)
        provider = Passthrough(server.url)
        for _ in range(2):
            await provider.open()
            assert provider.name == "raw"
            await provider.close()
            await provider.close()
        assert copy.copy(Passthrough(server.url)).name == "passthrough"
