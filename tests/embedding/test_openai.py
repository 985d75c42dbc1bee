"""OpenAIEmbedder against a server on a real socket that answers as a test's script says."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from waiting import until

from openproto.embedding import OpenAIEmbedder, openai_endpoint
from openproto.errors import (
    InvalidRequestError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)

KEY = "sk-very-secret"
TEXT = "the private words of Ann"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def rows(body: dict[str, Any], dim: int) -> list[dict[str, Any]]:
    """Return one row per input whose first number is the length of the text."""
    size = body.get("dimensions", dim)
    vectors = [[float(len(text)), *[0.5] * (size - 1)] for text in body["input"]]
    return [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]


@dataclass
class Answer:
    """One prepared answer; the default is a good one."""

    status: int = 200
    body: Callable[[list[dict[str, Any]]], Any] = lambda data: {"data": data}
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    drip: float = 0.0
    hang_up: bool = False


@dataclass
class Server:
    """Answers from `script`, then well; keeps what it was asked."""

    dim: int = 4
    script: list[Answer] = field(default_factory=list)
    always: Answer | None = None
    refuse: Callable[[dict[str, Any]], int | None] = lambda body: None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    connected: int = 0
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.connected += 1
        try:
            while await self.exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.connected -= 1
            writer.close()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length"))
        body = json.loads(await reader.readexactly(length))
        self.heads.append(head)
        self.bodies.append(body)
        answer = self.script.pop(0) if self.script else self.always or Answer()
        if answer.hang_up:
            return False
        if status := self.refuse(body):
            answer = Answer(status, lambda data: {"error": {"code": None}})
        made = answer.body(rows(body, self.dim))
        payload = made if isinstance(made, bytes) else json.dumps(made).encode()
        headers = {"content-type": "application/json", "content-length": str(len(payload)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        for byte in payload[: answer.cut] if answer.drip else ():
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(answer.drip)
        if not answer.drip:
            writer.write(payload[: answer.cut])
        await writer.drain()
        return answer.cut is None


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    fake = Server()
    listener = await asyncio.start_server(fake.serve, "127.0.0.1", 0)
    fake.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    yield fake
    listener.close()
    await until(lambda: not fake.connected)


@asynccontextmanager
async def opened(server: Server, model: str = "acme", **options: Any) -> AsyncIterator[OpenAIEmbedder]:
    """Open an embedder on `server` and forget the requests of opening."""
    embedder = OpenAIEmbedder(model, base_url=server.url, **options)
    script, server.script = server.script, []
    always, server.always = server.always, None
    try:
        await embedder.open()
        server.bodies.clear()
        server.heads.clear()
        server.script, server.always = script, always
        yield embedder
    finally:
        await embedder.close()


async def failure(server: Server, *answers: Answer, **options: Any) -> OpenProtoError:
    server.script = list(answers)
    async with opened(server, **options) as embedder:
        with pytest.raises(OpenProtoError) as raised:
            await embedder.embed([TEXT])
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert KEY not in shown
    assert TEXT not in shown
    assert "acme" in str(raised.value)
    return raised.value


async def test_the_request_and_its_answer_over_one_connection(server: Server) -> None:
    async with opened(server) as embedder:
        vectors = await embedder.embed(["a", "bbb"])
        await embedder.embed(["a"])
    assert [vector[0] for vector in vectors] == [1, 3]
    assert server.bodies[0] == {"model": "acme", "input": ["a", "bbb"], "encoding_format": "float"}
    assert server.heads[0].startswith("POST /v1/embeddings HTTP/1.1")
    assert f"authorization: bearer {KEY}" in server.heads[0].lower()
    assert server.connections == 1


@pytest.mark.parametrize(
    "body",
    [lambda data: {"data": data[::-1]}, lambda data: {"data": [{"embedding": row["embedding"]} for row in data]}],
    ids=["in another order", "without an index"],
)
async def test_rows_are_ordered_by_their_index_if_they_have_one(server: Server, body: Any) -> None:
    server.script = [Answer(body=body)]
    async with opened(server) as embedder:
        assert [row[0] for row in await embedder.embed(["a", "bb", "ccc"])] == [1, 2, 3]


@pytest.mark.parametrize(
    ("status", "kind", "calls"),
    [
        (302, ProviderError, 1),
        (400, InvalidRequestError, 1),
        (401, UnauthorizedError, 1),
        (403, UnauthorizedError, 1),
        (404, ProviderError, 1),
        (408, ProviderTimeoutError, 3),
        (413, PayloadTooLargeError, 1),
        (422, InvalidRequestError, 1),
        (429, RateLimitedError, 3),
        (500, ProviderUnavailableError, 3),
        (503, ProviderUnavailableError, 3),
        (504, ProviderTimeoutError, 3),
    ],
)
async def test_statuses(
    server: Server, status: int, kind: type[OpenProtoError], calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_endpoint, "uniform", lambda low, high: 0.0)
    quoting = {"error": {"message": f"Incorrect key {KEY} for {TEXT}", "code": "a_plain_word"}}
    server.always = Answer(status, lambda data: quoting, {"x-request-id": "req-7", "location": "/elsewhere"})
    error = await failure(server)
    assert type(error) is kind
    assert str(error) == f"the embedding server (acme) answered {status} (a_plain_word)"
    assert error.request_id == "req-7"
    assert len(server.bodies) == calls


@pytest.mark.parametrize("code", [KEY, TEXT, 7, None, "a" * 41, ["x"]])
async def test_a_code_that_is_not_a_plain_word_is_not_repeated(server: Server, code: object) -> None:
    error = await failure(server, Answer(400, lambda data: {"error": {"code": code}}))
    assert str(error) == "the embedding server (acme) answered 400"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"error": "text"}', b"\xff"])
async def test_a_refusal_need_not_be_json(server: Server, body: bytes) -> None:
    assert isinstance(await failure(server, Answer(401, lambda data: body)), UnauthorizedError)


@pytest.mark.parametrize(
    "body",
    [
        lambda data: b"",
        lambda data: b"<html>busy</html>",
        lambda data: json.dumps({"data": data}).encode()[:-9],
        lambda data: {},
        lambda data: [],
        lambda data: {"data": None},
        lambda data: {"data": [1]},
        lambda data: {"data": [{"index": 0}]},
        lambda data: {"data": [{"index": 5, "embedding": [1, 2, 3, 4]}]},
        lambda data: {"data": [*data, *data]},
        lambda data: {"data": []},
        lambda data: {"data": [*data, {"index": 1, "embedding": [1, 2, 3, 4]}]},
    ],
)
async def test_a_malformed_answer_is_a_provider_error_and_not_repeated(server: Server, body: Any) -> None:
    error = await failure(server, Answer(body=body))
    assert type(error) is ProviderError
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "broken",
    [Answer(hang_up=True), Answer(cut=7), Answer(429), Answer(500), Answer(503)],
    ids=["hang-up", "cut", "429", "500", "503"],
)
async def test_passing_troubles_are_repeated(server: Server, broken: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_endpoint, "uniform", lambda low, high: 0.0)
    server.script = [broken, broken]
    async with opened(server) as embedder:
        assert (await embedder.embed(["ab"]))[0][0] == 2
    assert len(server.bodies) == 3


async def test_a_server_that_does_not_exist_is_unavailable() -> None:
    embedder = OpenAIEmbedder("acme", base_url="http://127.0.0.1:9/v1", retries=1)
    with pytest.raises(ProviderUnavailableError, match="acme"):
        await embedder.open()
    await embedder.close()


@pytest.mark.parametrize(
    ("header", "seconds"), [("0.3", 0.3), ("0", 0), ("-5", 0), ("DATE", 60), ("nan", None), ("soon", None)]
)
async def test_retry_after_is_read_without_retries(server: Server, header: str, seconds: float | None) -> None:
    if header == "DATE":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    error = await failure(server, Answer(429, headers={"retry-after": header}), retries=0)
    assert len(server.bodies) == 1
    assert error.retry_after == (pytest.approx(seconds, abs=2 if seconds == 60 else 0) if seconds is not None else None)


async def test_retry_after_is_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_endpoint, "uniform", lambda low, high: 0.0)
    server.script = [Answer(429, headers={"retry-after": "0.3"})]
    async with opened(server) as embedder:
        start = asyncio.get_running_loop().time()
        await embedder.embed(["a"])
        assert asyncio.get_running_loop().time() - start >= 0.3


async def test_a_pause_beyond_the_deadline_is_not_begun(server: Server) -> None:
    async with asyncio.timeout(5):
        error = await failure(server, Answer(429, headers={"retry-after": "60"}), timeout=10)
    assert isinstance(error, RateLimitedError)
    assert error.retry_after == 60
    assert len(server.bodies) == 1


async def test_the_deadline_is_for_the_whole_call_however_slowly_it_drips(server: Server) -> None:
    async with asyncio.timeout(5):
        error = await failure(server, Answer(drip=0.05), timeout=0.3)
    assert isinstance(error, ProviderTimeoutError)
    assert "0.3 s" in str(error)


async def test_the_callers_own_timeout_stays_the_callers(server: Server) -> None:
    server.always = Answer(drip=0.05)
    async with opened(server) as embedder:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.2):
                await embedder.embed(["a"])
        assert not isinstance(raised.value, OpenProtoError)
        server.always = None
        assert len(await embedder.embed(["a"])) == 1, "usable after a cancellation"


@pytest.mark.parametrize(
    ("model", "dim"),
    [("text-embedding-3-small", 1536), ("text-embedding-3-large", 3072), ("text-embedding-ada-002", 1536)],
)
async def test_the_dimension_of_openais_models_is_known(server: Server, model: str, dim: int) -> None:
    embedder = OpenAIEmbedder(model, base_url=server.url)
    assert embedder.dim == dim
    await embedder.open()
    assert server.bodies == []
    await embedder.close()


@pytest.mark.parametrize("options", [{}, {"dim": 4}])
async def test_the_dimension_of_others_is_asked_for_once_and_not_sent(server: Server, options: Any) -> None:
    embedder = OpenAIEmbedder("acme", base_url=server.url, **options)
    assert embedder.dim == options.get("dim", 0)
    await embedder.open()
    assert embedder.dim == 4
    await embedder.embed(["a"])
    assert len(server.bodies) == 2
    assert "dimensions" not in server.bodies[1]
    await embedder.close()


@pytest.mark.parametrize("model", ["acme", "text-embedding-3-small"])
async def test_a_shorter_dimension_is_sent(server: Server, model: str) -> None:
    async with opened(server, model, dim=3) as embedder:
        assert embedder.dim == 3
        assert len((await embedder.embed(["a"]))[0]) == 3
    assert server.bodies[0]["dimensions"] == 3


async def test_a_model_that_cannot_shorten_does_not_open(server: Server) -> None:
    server.always = Answer(body=lambda data: {"data": [{"index": 0, "embedding": [1, 2, 3, 4]}]})
    embedder = OpenAIEmbedder("acme", base_url=server.url, dim=3)
    with pytest.raises(ProviderError, match="'acme' gives 4 dimensions, not the 3"):
        await embedder.open()
    await embedder.close()


@pytest.mark.parametrize("status", [400, 413])
async def test_of_a_text_that_is_too_long_the_beginning_is_embedded(server: Server, status: int) -> None:
    server.refuse = lambda body: status if any(len(text) > 9_000 for text in body["input"]) else None
    async with opened(server) as embedder:
        [row] = await embedder.embed(["x" * 100_000])
    assert row[0] == 8_000
    assert [len(body["input"][0]) for body in server.bodies] == [32_000, 16_000, 8_000]


async def test_a_lone_text_that_is_refused_at_any_length_is_refused(server: Server) -> None:
    server.refuse = lambda body: 400 if "x" in body["input"][0] else None
    async with opened(server) as embedder:
        with pytest.raises(InvalidRequestError):
            await embedder.embed(["x" * 1_000])
    assert len(server.bodies) == 2


async def test_nothing_secret_is_logged_or_shown(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [Answer(429, headers={"retry-after": "0"}), Answer(400)]
    async with opened(server) as embedder:
        with pytest.raises(InvalidRequestError):
            await embedder.embed([TEXT])
        assert KEY not in repr(embedder)
    assert caplog.records
    assert KEY not in caplog.text
    assert TEXT not in caplog.text


@pytest.mark.parametrize("url", ["localhost:80", "ftp://host", "https://", "", "https://me:pass@host/v1"])
def test_a_bad_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as raised:
        OpenAIEmbedder(base_url=url)
    assert "pass@" not in str(raised.value)


async def test_openai_wants_a_key_and_others_do_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(server, api_key=f"{KEY}-2\n") as embedder:
        await embedder.embed(["a"])
    assert f"bearer {KEY}-2\r\n" in server.heads.pop().lower()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UnauthorizedError, match="OPENAI_API_KEY"):
        await OpenAIEmbedder().open()
    async with opened(server) as embedder:
        await embedder.embed(["a"])
    assert "authorization" not in server.heads[0].lower()


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY}é"])
async def test_a_key_that_no_header_can_carry_is_refused_unquoted(server: Server, key: str) -> None:
    with pytest.raises(UnauthorizedError) as raised:
        await OpenAIEmbedder("acme", base_url=server.url, api_key=key).open()
    assert KEY not in "".join(traceback.format_exception(raised.value))


async def test_what_is_not_open_is_a_runtime_error_and_a_missing_httpx_names_the_extra(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "openproto.embedding.openai_endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    embedder = OpenAIEmbedder("acme", base_url=server.url)
    with pytest.raises(ImportError, match=r"pip install 'openproto\[openai\]'"):
        await embedder.open()
    with pytest.raises(RuntimeError, match="not open"):
        await embedder.embed(["a"])
    await embedder.close()
