"""OpenAIEmbedder against a server on a real socket that answers as a test's script says."""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from asyncio import StreamWriter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from raw_server import Handler, RawServer, Request, always, answer

from openproto import errors
from openproto.embedding import OpenAIEmbedder, openai_endpoint

Failure: TypeAlias = Callable[..., Awaitable[errors.OpenProtoError]]

KEY = "sk-very-secret"
TEXT = "the private words of Ann"
KNOWN = "text-embedding-ada-002"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr(openai_endpoint, "uniform", lambda low, high: 0.0)


def row(first: float, index: int | None = None, dim: int = 4) -> dict[str, Any]:
    found: dict[str, Any] = {"embedding": [first, *[0.5] * (dim - 1)]}
    return found if index is None else {"index": index, **found}


async def rows(request: Request, writer: StreamWriter) -> bytes:
    """Answer with a row of four numbers for each text, the first of which is its length."""
    body = request.json
    return answer({"data": [row(len(text), at, body.get("dimensions", 4)) for at, text in enumerate(body["input"])]})


async def drips(request: Request, writer: StreamWriter) -> bytes:
    for byte in await rows(request, writer):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    return b""


async def breaks_off(request: Request, writer: StreamWriter) -> None:
    writer.write((await rows(request, writer))[:-7])


async def hangs_up(request: Request, writer: StreamWriter) -> None:
    """Answer nothing."""


def gives(body: Any, status: int = 200, **headers: object) -> Handler:
    return always(answer(body, status, **headers))


class Server(RawServer):
    """Answers from `script`, then with `rest`."""

    def __init__(self) -> None:
        super().__init__(self._next, capabilities=b"")
        self.script: list[Handler] = []
        self.rest: Handler = rows

    @property
    def bodies(self) -> list[Any]:
        return [request.json for request in self.requests]

    async def _next(self, request: Request, writer: StreamWriter) -> bytes | None:
        return await (self.script.pop(0) if self.script else self.rest)(request, writer)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as server:
        yield server


@asynccontextmanager
async def opened(server: Server, model: str = KNOWN, **options: Any) -> AsyncIterator[OpenAIEmbedder]:
    embedder = OpenAIEmbedder(model, base_url=f"{server.url}/v1", **options)
    try:
        await embedder.open()
        yield embedder
    finally:
        await embedder.close()


@pytest.fixture
async def failure(server: Server, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Failure]:
    """Return the error of a call that gets an answer however often it asks; nothing private is shown or logged."""
    caplog.set_level(logging.DEBUG)
    async with opened(server) as ready:

        async def of(rest: Handler, embedder: OpenAIEmbedder = ready) -> errors.OpenProtoError:
            server.rest = rest
            server.requests.clear()
            with pytest.raises(errors.OpenProtoError) as raised:
                await embedder.embed([TEXT])
            shown = "".join(traceback.format_exception(raised.value)) + f"{raised.value!r} {embedder!r}" + caplog.text
            assert caplog.records
            assert not any(private in shown for private in (KEY, TEXT))
            assert KNOWN in str(raised.value)
            return raised.value

        yield of


async def test_the_request_and_its_answer_over_one_connection(server: Server) -> None:
    async with opened(server) as embedder:
        assert embedder.dim == 1536
        assert server.bodies == []
        vectors = await embedder.embed(["a", "bbb"])
        await embedder.embed(["a"])
    assert [vector[0] for vector in vectors] == [1, 3]
    assert server.bodies[0] == {"model": KNOWN, "input": ["a", "bbb"], "encoding_format": "float"}
    first = server.requests[0]
    assert (first.route, first.headers["authorization"]) == ("POST /v1/embeddings", f"Bearer {KEY}".encode())
    assert server.connections == 1


@pytest.mark.parametrize("data", [[row(3, 2), row(1, 0), row(2, 1)], [row(1), row(2), row(3)]])
async def test_rows_are_ordered_by_their_index_if_they_have_one(server: Server, data: Any) -> None:
    server.script = [gives({"data": data})]
    async with opened(server) as embedder:
        assert [found[0] for found in await embedder.embed(["a", "bb", "ccc"])] == [1, 2, 3]


STATUSES: dict[int, type[errors.OpenProtoError]] = {
    **dict.fromkeys((302, 404), errors.ProviderError),
    **dict.fromkeys((400, 422), errors.InvalidRequestError),
    **dict.fromkeys((401, 403), errors.UnauthorizedError),
    **dict.fromkeys((408, 504), errors.ProviderTimeoutError),
    413: errors.PayloadTooLargeError,
    429: errors.RateLimitedError,
    **dict.fromkeys((500, 503), errors.ProviderUnavailableError),
}


async def test_statuses(server: Server, failure: Failure) -> None:
    quoting = {"error": {"message": f"Incorrect key {KEY} for {TEXT}", "code": "a_plain_word"}}
    for status, kind in STATUSES.items():
        error = await failure(gives(quoting, status, x_request_id="req-7", location="/elsewhere"))
        assert type(error) is kind
        assert str(error) == f"the embedding server ({KNOWN}) answered {status} (a_plain_word)"
        assert error.request_id == "req-7"
        assert len(server.bodies) == (3 if status in (408, 429, 500, 503, 504) else 1)


async def test_a_refusal_need_not_be_json_and_only_a_plain_code_is_repeated(failure: Failure) -> None:
    codes = ({"error": {"code": code}} for code in (KEY, TEXT, 7, None, "a" * 41, ["x"]))
    for body in (*codes, b"", b"<html>", b"[1]", {"error": "text"}, b"\xff"):
        assert str(await failure(gives(body, 400))) == f"the embedding server ({KNOWN}) answered 400"


async def test_a_malformed_answer_is_a_provider_error_and_not_repeated(server: Server, failure: Failure) -> None:
    wrong: Any = (None, [1], [{"index": 0}], [row(1, 5)], [row(1, 0)] * 2, [], [row(1, 0), row(1, 1)])
    whole = ({"data": data} for data in wrong)
    for body in (b"", b"<html>busy</html>", b'{"data": [{"index": 0, "embed', {}, [], *whole):
        assert type(await failure(gives(body))) is errors.ProviderError
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    ("broken", "pause"), [(hangs_up, 0), (breaks_off, 0), (gives(b"", 503, retry_after="0.05"), 0.05)]
)
async def test_passing_troubles_are_repeated(server: Server, broken: Handler, pause: float) -> None:
    server.script = [broken, broken]
    async with opened(server) as embedder:
        start = asyncio.get_running_loop().time()
        assert (await embedder.embed(["ab"]))[0][0] == 2
        waited = asyncio.get_running_loop().time() - start
    assert len(server.bodies) == 3
    assert waited >= 2 * pause


async def test_a_pause_beyond_the_deadline_is_not_begun(server: Server, failure: Failure) -> None:
    async with asyncio.timeout(5), opened(server, timeout=10) as embedder:
        error = await failure(gives(b"", 429, retry_after="60"), embedder)
    assert isinstance(error, errors.RateLimitedError)
    assert (error.retry_after, len(server.bodies)) == (60, 1)


async def test_the_deadline_is_for_the_whole_call_however_slowly_it_drips(server: Server, failure: Failure) -> None:
    async with asyncio.timeout(5), opened(server, timeout=0.3) as embedder:
        error = await failure(drips, embedder)
    assert isinstance(error, errors.ProviderTimeoutError)
    assert "0.3 s" in str(error)


async def test_the_callers_own_timeout_stays_the_callers_and_the_embedder_usable(server: Server) -> None:
    server.script = [drips]
    async with opened(server) as embedder:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(0.1):
                await embedder.embed(["a"])
        assert not isinstance(raised.value, errors.OpenProtoError)
        assert len(await embedder.embed(["a"])) == 1


@pytest.mark.parametrize(
    ("model", "options", "dim", "asked"),
    [("acme", {}, 4, 1), ("acme", {"dim": 4}, 4, 1), ("acme", {"dim": 3}, 3, 2), (KNOWN, {"dim": 3}, 3, 1)],
)
async def test_an_unknown_dimension_is_asked_for_once_and_a_shorter_one_is_sent(
    server: Server, model: str, options: Any, dim: int, asked: int
) -> None:
    async with opened(server, model, **options) as embedder:
        assert (embedder.dim, len(server.bodies)) == (dim, asked)
        assert len((await embedder.embed(["a"]))[0]) == dim
    assert server.bodies[-1].get("dimensions") == (3 if dim == 3 else None)


async def test_a_model_that_cannot_shorten_does_not_open(server: Server) -> None:
    server.rest = gives({"data": [row(1, 0)]})
    with pytest.raises(errors.ProviderError, match="'acme' gives 4 dimensions, not the 3"):
        async with opened(server, "acme", dim=3):
            pass


@pytest.mark.parametrize(
    ("length", "answers", "asked"),
    [
        (100_000, [gives(b"", 400), gives(b"", 413), rows], [32_000, 16_000, 8_000]),
        (1_000, [gives(b"", 400)] * 2, [1_000, 500]),
    ],
)
async def test_of_a_text_that_is_too_long_the_beginning_is_embedded_unless_any_length_is_refused(
    server: Server, length: int, answers: list[Handler], asked: list[int]
) -> None:
    server.script, refused = [*answers], answers[-1] is not rows
    async with opened(server) as embedder:
        if refused:
            with pytest.raises(errors.InvalidRequestError):
                await embedder.embed(["x" * length])
        else:
            assert (await embedder.embed(["x" * length]))[0][0] == asked[-1]
    assert [len(body["input"][0]) for body in server.bodies] == asked


@pytest.mark.parametrize("url", ["localhost:80", "ftp://host", "https://", "", "https://me:pass@host/v1"])
def test_a_bad_url_is_refused_without_quoting_it(url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as raised:
        OpenAIEmbedder(base_url=url)
    assert "pass@" not in str(raised.value)


async def test_openai_wants_a_key_and_others_do_not(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(server, api_key=f"{KEY}-2\n") as embedder:
        await embedder.embed(["a"])
    assert server.requests.pop().headers["authorization"] == f"Bearer {KEY}-2".encode()
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(errors.UnauthorizedError, match="OPENAI_API_KEY"):
        await OpenAIEmbedder().open()
    async with opened(server) as embedder:
        await embedder.embed(["a"])
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY}é"])
async def test_a_key_that_no_header_can_carry_is_refused_unquoted(key: str) -> None:
    with pytest.raises(errors.UnauthorizedError) as raised:
        await OpenAIEmbedder(api_key=key).open()
    assert KEY not in "".join(traceback.format_exception(raised.value))


async def test_what_is_not_open_says_so_and_a_missing_httpx_its_extra(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "openproto.embedding.openai_endpoint", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    embedder = OpenAIEmbedder("acme", base_url=server.url)
    with pytest.raises(ImportError, match=r"pip install 'openproto\[openai\]'"):
        await embedder.open()
    with pytest.raises(RuntimeError, match="not open"):
        await embedder.embed(["a"])
