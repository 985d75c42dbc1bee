"""Supermemory's errors become the protocol's, by class; none repeats a key or a memory."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from openproto_adapters.supermemory import Supermemory
from openproto_conformance.emulators import CloseConnection, HtmlWith200, ResetConnection, Status, TruncatedJson
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    PayloadTooLargeError,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)

SECRET = "the secret of the memory"


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (400, InvalidRequestError, False),
        (401, UnauthorizedError, False),
        (402, RateLimitedError, True),
        (403, ScopeDeniedError, False),
        (409, ConflictError, False),
        (413, PayloadTooLargeError, False),
        (418, ProviderError, False),
        (422, InvalidRequestError, False),
        (429, RateLimitedError, True),
        (500, ProviderError, False),
        (502, ProviderUnavailableError, True),
        (503, ProviderUnavailableError, True),
        (504, ProviderUnavailableError, True),
    ],
)
async def test_a_status_is_its_error(
    memory: AsyncMemory, emulator: Emulator, status: int, kind: type[OpenProtoError], retryable: bool
) -> None:
    emulator.faults.next(Status(status), method="POST", path="*/document")
    with pytest.raises(OpenProtoError) as caught:
        await memory.add(SECRET, user_id="ada")
    error = caught.value
    assert (type(error), error.retryable, error.provider) == (kind, retryable, "supermemory")
    assert getattr(error.__cause__, "status_code", None) == status
    assert emulator.counters.by_route["POST /ns/{namespace}/document"] == 0


async def test_each_verb_has_typed_errors(memory: AsyncMemory, emulator: Emulator) -> None:
    record = await memory.add("tea", user_id="ada")
    for method, path, verb in (
        ("GET", "*/document/*", lambda: memory.get(record.id)),
        ("PATCH", "*/document/*", lambda: memory.update(record.id, tags=["x"])),
        ("DELETE", "*/document", lambda: memory.delete(record.id)),
        ("POST", "*/list/*", lambda: memory.list("ada")),
        ("POST", "*/search", lambda: memory.search("tea", "ada")),
        ("DELETE", "/ns/*", lambda: memory.delete_all("ada")),
    ):
        emulator.faults.next(Status(503), method=method, path=path)
        with pytest.raises(ProviderUnavailableError):
            await verb()
    emulator.faults.next(Status(503), path="/ns*")
    assert (await memory.health()).status == "unavailable"
    outcomes = await _failing_batch(memory, emulator)
    assert [type(outcome) for outcome in outcomes] == [ProviderUnavailableError] * 2


async def _failing_batch(memory: AsyncMemory, emulator: Emulator) -> list[Any]:
    emulator.faults.next(Status(503), path="*/batch")
    return [*await memory.add_many([{"content": "tea", "user_id": "ada"}] * 2)]


async def test_a_wait_that_is_asked_for_is_passed_on(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.faults.next(Status(429, retry_after=7), path="*/document")
    with pytest.raises(RateLimitedError) as caught:
        await memory.add("tea", user_id="ada")
    assert caught.value.retry_after == 7
    emulator.faults.next(Status(429, headers={"retry-after": "soon"}), path="*/document")
    with pytest.raises(RateLimitedError) as caught:
        await memory.add("tea", user_id="ada")
    assert caught.value.retry_after is None


async def test_what_is_said_of_a_quota_is_quoted_without_the_key(memory: AsyncMemory, emulator: Emulator) -> None:
    body = {"error": f"Out of credits for {emulator.api_key}: upgrade at supermemory.ai" + "!" * 1000}
    emulator.faults.next(Status(402, body=body), path="*/document")
    with pytest.raises(RateLimitedError, match="Out of credits for \\*\\*\\*: upgrade") as caught:
        await memory.add(SECRET, user_id="ada")
    assert len(str(caught.value)) < 300


async def test_a_conflict_is_not_tried_again(emulator: Emulator) -> None:
    async with AsyncMemory(Supermemory(**emulator.provider_options()), retries=3) as memory:
        emulator.faults.next(Status(409), path="*/document")
        with pytest.raises(ConflictError):
            await memory.add("tea", user_id="ada")
        assert emulator.counters.by_route["POST /ns/{namespace}/document"] == 0
        emulator.faults.next(Status(503), Status(503), path="*/document")
        assert (await memory.add("tea", user_id="ada")).content == "tea"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (HtmlWith200(), ProviderError),
        (TruncatedJson(), ProviderError),
        (CloseConnection(), ProviderUnavailableError),
        (CloseConnection(mid_body=True), ProviderUnavailableError),
        (ResetConnection(), ProviderUnavailableError),
        (Status(200, body=b"\xff\xfe"), ProviderError),
        (Status(200, body=b"[" * 100_000), ProviderError),
    ],
)
async def test_a_broken_answer_is_told(
    memory: AsyncMemory, emulator: Emulator, fault: Any, kind: type[OpenProtoError]
) -> None:
    emulator.faults.next(fault, path="*/search")
    with pytest.raises(OpenProtoError) as caught:
        await memory.search(SECRET, "ada")
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("body", [{}, [], None, "fine", {"id": 7, "status": []}, {"results": 1}, {"documents": [{}]}])
async def test_an_answer_of_another_shape_is_an_error_although_the_sdk_takes_it(
    memory: AsyncMemory, emulator: Emulator, body: Any
) -> None:
    record = await memory.add("tea", user_id="ada")
    with emulator.faults.always(Status(200, body=body), path="/ns/*"):
        for verb in (
            memory.add("tea", user_id="ada"),
            memory.get(record.id),
            memory.list("ada"),
            memory.search("tea", "ada"),
            memory.update(record.id, tags=["x"]),
            memory.delete(record.id),
            memory.delete_all("ada"),
        ):
            with pytest.raises(ProviderError) as caught:
                await verb
            assert type(caught.value) is ProviderError


@pytest.mark.parametrize("damage", [{"openproto": "{}"}, {"openproto": "nonsense"}, {"openproto": [1]}])
async def test_a_damaged_memory_is_an_error_and_not_a_crash(
    memory: AsyncMemory, emulator: Emulator, damage: dict[str, Any]
) -> None:
    record = await memory.add("tea", user_id="ada")
    (namespace,) = emulator.namespaces.values()
    (document,) = namespace.documents.values()
    document.metadata.update(damage)
    for verb in (memory.get(record.id), memory.list("ada")):
        with pytest.raises(ProviderError, match="damaged"):
            await verb


async def test_a_request_that_is_refused_is_not_repeated_in_words(memory: AsyncMemory, emulator: Emulator) -> None:
    body = {"success": False, "error": [{"message": SECRET, "path": ["content"]}], "data": {"content": SECRET}}
    emulator.faults.next(Status(400, body=body), path="*/document")
    with pytest.raises(InvalidRequestError) as caught:
        await memory.add(SECRET, user_id="ada")
    assert SECRET not in str(caught.value)


async def test_the_key_is_in_no_message_log_line_or_repr(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    provider = Supermemory(base_url=emulator.url, api_key="sk-not-the-right-one")
    with pytest.raises(UnauthorizedError) as caught:
        async with AsyncMemory(provider):
            pass
    right = Supermemory(**emulator.provider_options())
    async with AsyncMemory(right) as memory:
        await memory.add(SECRET, user_id="ada")
        about = await right.describe()
    told = " ".join((str(caught.value), repr(provider), repr(right), str(about), caplog.text))
    assert "sk-not-the-right-one" not in told
    assert emulator.api_key not in told
    assert SECRET not in told


async def test_a_key_is_needed_and_taken_from_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUPERMEMORY_API_KEY", raising=False)
    with pytest.raises(UnauthorizedError, match="SUPERMEMORY_API_KEY"):
        async with AsyncMemory("supermemory", base_url=emulator.url):
            pass
    assert emulator.counters.requests == 0
    monkeypatch.setenv("SUPERMEMORY_API_KEY", emulator.api_key)
    monkeypatch.setenv("SUPERMEMORY_BASE_URL", emulator.url)
    async with AsyncMemory("supermemory") as memory:
        assert (await memory.add("tea", user_id="ada")).content == "tea"


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"task_type": "both"},
        {"dreaming": "instant"},
        {"task_type": "memory", "dreaming": "lucid"},
        {"wait": "done"},
        {"base_url": "https://ada:hunter2@example.com"},
    ],
)
async def test_options_that_mean_nothing_are_refused_when_the_provider_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        Supermemory(api_key="k", **options)
    assert "hunter2" not in str(caught.value)


async def test_bad_input_is_refused_before_any_request(memory: AsyncMemory, emulator: Emulator) -> None:
    before = emulator.counters.requests
    for call in (
        memory.add(" ", user_id="ada"),
        memory.add("x" * 100_001, user_id="ada"),
        memory.add("tea", user_id=""),
        memory.search("tea", "ada", limit=101),
        memory.list("ada", cursor="made up"),
        memory.list("ada", scope="a*b"),
    ):
        with pytest.raises(InvalidRequestError):
            await call
    assert emulator.counters.requests == before


async def test_a_host_that_nobody_serves_is_unavailable() -> None:
    for url in ("http://127.0.0.1:9", "no-url-at-all", "http://localhost:port"):
        with pytest.raises(ProviderError):
            async with AsyncMemory("supermemory", base_url=url, api_key="k"):
                pass


async def test_a_missing_memory_is_not_found_for_every_verb(memory: AsyncMemory) -> None:
    record = await memory.add("tea", user_id="ada")
    await memory.delete(record.id)
    for verb in (memory.get(record.id), memory.update(record.id, tags=["x"]), memory.delete(record.id)):
        with pytest.raises(NotFoundError):
            await verb
