"""The options of passthrough: checked when it is made, without I/O, and no secret is repeated anywhere."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from raw_server import RawServer, always, refusal

from openproto import AsyncMemory, OpenProtoError, ProviderUnavailableError

KEY = "correct-horse-battery"


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


@pytest.mark.promise(110)
async def test_a_server_that_is_not_there_is_named_at_entry() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ProviderUnavailableError, match=f"{url}: no connection: nothing listens there") as caught:
        async with AsyncMemory("passthrough", base_url=url, retries=0):
            pass
    assert caught.value.__cause__ is not None
