"""Memsy's errors become the protocol's, by class and status; none repeats a key or a memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from openproto_adapters.memsy import Memsy
from openproto_adapters.memsy import provider as provider_module
from openproto_conformance.emulators import (
    CloseConnection,
    HtmlWith200,
    Latency,
    ResetConnection,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.memsy import Memsy as Emulator

from openproto import (
    AsyncMemory,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)

SECRET = "the secret of the memory"


def code(error: str) -> dict[str, Any]:
    return {"detail": {"error": error, "message": f"about {SECRET}"}}


@pytest.mark.parametrize(
    ("status", "body", "kind", "retryable"),
    [
        (400, None, InvalidRequestError, False),
        (400, code("org_id_not_allowed"), InvalidRequestError, False),
        (401, None, UnauthorizedError, False),
        (402, None, RateLimitedError, True),
        (403, {"message": "Forbidden"}, UnauthorizedError, False),
        (403, code("wrong_scope"), ScopeDeniedError, False),
        (403, code("feature_not_available"), ScopeDeniedError, False),
        (403, code("seat_required"), ScopeDeniedError, False),
        (403, code("org_limit_reached"), ScopeDeniedError, False),
        (403, code("key_limit_reached"), ScopeDeniedError, False),
        (403, code("billing_not_enabled"), ScopeDeniedError, False),
        (404, None, NotFoundError, False),
        (409, code("seat_limit_reached"), ScopeDeniedError, False),
        (413, None, PayloadTooLargeError, False),
        (418, None, ProviderError, False),
        (422, None, InvalidRequestError, False),
        (429, None, RateLimitedError, True),
        (429, code("usage_limit_exceeded"), RateLimitedError, True),
        (500, None, ProviderError, False),
        (501, None, ProviderError, False),
        (502, b"<html>bad gateway</html>", ProviderUnavailableError, True),
        (503, None, ProviderUnavailableError, True),
        (504, None, ProviderUnavailableError, True),
    ],
)
async def test_a_status_is_its_error(
    memory: AsyncMemory, emulator: Emulator, status: int, body: Any, kind: type[OpenProtoError], retryable: bool
) -> None:
    emulator.faults.next(Status(status, body=body), path="/v1/ingest")
    with pytest.raises(OpenProtoError) as caught:
        await memory.add(SECRET, user_id="ann")
    error = caught.value
    assert (type(error), error.retryable, error.provider) == (kind, retryable, "memsy")
    assert getattr(error.__cause__, "status_code", None) == status
    assert SECRET not in str(error)
    assert emulator.events == {}


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (CloseConnection(), ProviderUnavailableError),
        (CloseConnection(mid_body=True), ProviderUnavailableError),
        (ResetConnection(), ProviderUnavailableError),
        (HtmlWith200(), ProviderError),
        (TruncatedJson(), ProviderError),
        (Status(502, body=["a proxy's list"]), ProviderError),
        (Status(200, body=["no object"]), ProviderError),
        (Status(200, body={"event_ids": "no list"}), ProviderError),
        (Status(200, body={"event_ids": []}), ProviderError),
        (Status(200, body={"event_ids": ["../x"]}), ProviderError),
        (Status(204, body=b""), ProviderError),
    ],
    ids=repr,
)
async def test_whatever_the_sdk_lets_pass_is_typed(
    memory: AsyncMemory, emulator: Emulator, fault: Any, kind: type[OpenProtoError]
) -> None:
    emulator.faults.next(fault, path="/v1/ingest")
    with pytest.raises(OpenProtoError) as caught:
        await memory.add(SECRET, user_id="ann")
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    assert (await memory.list("ann")).items == []


@pytest.mark.parametrize(
    "result",
    [
        {"id": "x", "content": "x"},
        {"id": "x", "content": "x", "score": None},
        {"id": "x", "content": "x", "score": 1.0, "metadata": ["no object"]},
        {"id": "x", "content": "x", "score": 1.0, "metadata": {"source_metadata": [1]}},
        {"id": "x", "content": "x", "score": 1.0, "metadata": {"source_events": [{}]}},
        {"id": "x", "content": "x", "score": 1.0, "metadata": {"source_event_ids": 7}},
    ],
    ids=repr,
)
async def test_a_search_result_of_a_wrong_shape_is_an_error(
    memory: AsyncMemory, emulator: Emulator, result: Any
) -> None:
    emulator.faults.next(Status(200, body={"results": [result]}), path="/v1/search")
    with pytest.raises(ProviderError, match="Memsy"):
        await memory.search("tea", "ann")


async def test_a_status_of_a_wrong_shape_is_an_error(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("tea", user_id="ann")
    emulator.faults.next(Status(200, body={"completedIds": 3}), path="/v1/status")
    with pytest.raises(ProviderError, match="unexpected response"):
        await memory.get(record.id)


async def test_each_verb_has_typed_errors(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.lag = 60.0
    record = await memory.add("tea", user_id="ann")
    calls: tuple[tuple[str, Any], ...] = (
        ("/v1/status", lambda: memory.get(record.id)),
        ("/v1/status", lambda: memory.list("ann")),
        ("/v1/ingest", lambda: memory.update(record.id, content="new")),
        ("/v1/search", lambda: memory.search("tea", "ann")),
        ("/v1/search", lambda: memory.context("tea", "ann")),
    )
    for path, call in calls:
        emulator.faults.next(Status(503), path=path)
        with pytest.raises(ProviderUnavailableError):
            await call()
    assert (await memory.get(record.id)).content == "tea"
    emulator.faults.next(Status(503), path="/v1/ingest")
    outcomes = await memory.add_many([{"content": text, "user_id": "ann"} for text in "ab"])
    assert {type(outcome) for outcome in outcomes} == {ProviderUnavailableError}


@pytest.mark.promise(30)
async def test_health_says_whether_memsy_works_and_takes_the_key(memory: AsyncMemory, emulator: Emulator) -> None:
    assert (await memory.health()).status == "ok"
    for path, status in (("/v1/health", 503), ("/v1/console/memories", 401)):
        emulator.faults.next(Status(status), path=path)
        assert (await memory.health()).status == "unavailable"


@pytest.mark.promise(29)
async def test_url_and_key_may_stand_in_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    for name in ("MEMSY_BASE_URL", "MEMSY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UnauthorizedError, match="MEMSY_API_KEY"):
        async with AsyncMemory("memsy"):
            pass
    monkeypatch.setenv("MEMSY_API_KEY", emulator.api_key)
    with pytest.raises(InvalidRequestError, match="MEMSY_BASE_URL"):
        async with AsyncMemory("memsy"):
            pass
    monkeypatch.setenv("MEMSY_BASE_URL", f"{emulator.url}/v1")
    async with AsyncMemory("memsy", path=path) as memory:
        assert (await memory.add("tea", user_id="ann")).content == "tea"


async def test_the_sdks_own_timeout_is_a_timeout(
    emulator: Emulator, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "TIMEOUT", 0.5)
    async with AsyncMemory(Memsy(**emulator.provider_options(), path=path), retries=0, timeout=None) as memory:
        emulator.faults.next(Latency(5.0), path="/v1/search")
        with pytest.raises(ProviderTimeoutError):
            await memory.search("tea", "ann")
