"""What becomes of Letta's errors, and of answers that make no sense."""

from __future__ import annotations

import logging
from typing import Any

import letta_client as sdk
import pytest
from letta_client import Letta as Sdk
from openproto_adapters.letta import Letta
from openproto_conformance.emulators import (
    CloseConnection,
    HtmlWith200,
    Latency,
    ResetConnection,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.letta import Letta as Emulator

from openproto import (
    AsyncMemory,
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    ScopeDeniedError,
    UnauthorizedError,
)
from openproto.errors import PayloadTooLargeError

SECRET = "sk-let-correct-horse"


@pytest.mark.parametrize(
    ("status", "expected", "cause"),
    [
        (400, InvalidRequestError, sdk.BadRequestError),
        (401, UnauthorizedError, sdk.AuthenticationError),
        (402, RateLimitedError, sdk.APIStatusError),
        (403, ScopeDeniedError, sdk.PermissionDeniedError),
        (405, ProviderError, sdk.APIStatusError),
        (409, ConflictError, sdk.ConflictError),
        (413, PayloadTooLargeError, sdk.APIStatusError),
        (422, InvalidRequestError, sdk.UnprocessableEntityError),
        (429, RateLimitedError, sdk.RateLimitError),
        (500, ProviderUnavailableError, sdk.InternalServerError),
        (503, ProviderUnavailableError, sdk.InternalServerError),
    ],
)
async def test_a_status_is_the_error_that_it_means_without_lettas_words(
    memory: AsyncMemory, emulator: Emulator, status: int, expected: type[OpenProtoError], cause: type[Exception]
) -> None:
    body = {"detail": "the memory content, repeated"}
    for attempt in (lambda: memory.add("tea", user_id="ann"), lambda: memory.search("tea", "ann")):
        emulator.faults.next(Status(status, body=body))
        with pytest.raises(expected) as caught:
            await attempt()
        assert type(caught.value) is expected
        assert type(caught.value.__cause__) is cause
        assert "repeated" not in str(caught.value)
        if status == 500:
            with pytest.raises(ProviderUnavailableError):  # the connection is broken
                await memory.search("tea", "ann")


async def test_a_user_without_an_archive_has_nothing(memory: AsyncMemory) -> None:
    assert await memory.search("tea", "nobody") == []
    assert (await memory.list("nobody")).items == []
    assert await memory.delete_all("nobody") == 0


@pytest.mark.parametrize("status", [404, 400])
async def test_a_passage_that_cannot_be_deleted_from_the_archive_is_looked_for_again_but_not_for_ever(
    memory: AsyncMemory, emulator: Emulator, status: int
) -> None:
    record = await memory.add("tea", user_id="ann")
    emulator.faults.next(Status(status), method="DELETE")
    await memory.delete(record.id)
    record = await memory.add("tea", user_id="ann")
    with emulator.faults.always(Status(status), method="DELETE"), pytest.raises(NotFoundError):
        await memory.delete(record.id)


async def test_retry_after_is_told(memory: AsyncMemory, emulator: Emulator) -> None:
    emulator.faults.next(Status(429, retry_after=7))
    with pytest.raises(RateLimitedError) as caught:
        await memory.search("tea", "ann")
    assert caught.value.retry_after == 7.0
    emulator.faults.next(Status(429, headers={"retry-after": "tomorrow"}))
    with pytest.raises(RateLimitedError) as caught:
        await memory.search("tea", "ann")
    assert caught.value.retry_after is None


async def test_after_a_500_the_next_call_meets_a_dead_connection_and_a_retried_one_does_not(
    emulator: Emulator,
) -> None:
    async with AsyncMemory(Letta(**emulator.provider_options(), width=1), retries=0) as memory:
        await memory.add("tea", user_id="ann")
        emulator.faults.next(Status(500))
        with pytest.raises(ProviderUnavailableError, match="status 500"):
            await memory.search("tea", "ann")
        with pytest.raises(ProviderUnavailableError, match="connection"):
            await memory.search("tea", "ann")
        assert len(await memory.search("tea", "ann")) == 1
    async with AsyncMemory(Letta(**emulator.provider_options(), width=1), retries=2) as patient:
        emulator.faults.next(Status(500))
        assert [hit.memory.content for hit in await patient.search("tea", "ann")] == ["tea"]


@pytest.mark.parametrize("fault", [CloseConnection(applied=True), ResetConnection(applied=True), TruncatedJson()])
async def test_a_write_whose_answer_is_lost_is_stored_once_by_a_client_that_retries(
    emulator: Emulator, fault: Any
) -> None:
    async with AsyncMemory(Letta(**emulator.provider_options())) as memory:
        await memory.add("first", user_id="ann")
        (archive,) = emulator.archives.values()
        for key in (None, "key-1"):
            emulator.faults.next(fault, path="*/passages")
            if isinstance(fault, TruncatedJson):  # nonsense is no reason to try again: the caller does
                key = key or "key-2"
                with pytest.raises(ProviderError):
                    await memory.add(f"tea {key}", user_id="ann", idempotency_key=key)
            await memory.add(f"tea {key}", user_id="ann", idempotency_key=key)
        texts = [record.content async for record in memory.iter("ann")]
        assert len(texts) == len(set(texts)) == 3
        assert emulator.counters.requests > len(archive.passages)


async def test_the_sdk_itself_never_sends_a_write_twice(memory: AsyncMemory, emulator: Emulator) -> None:
    await memory.add("first", user_id="ann")
    for fault in (Status(409), Status(429), Status(503), CloseConnection()):
        before = emulator.counters.by_route["POST /v1/archives/{archive_id}/passages"]
        seen = emulator.counters.requests
        emulator.faults.next(fault)
        with pytest.raises(OpenProtoError):
            await memory.add("tea", user_id="ann")
        assert emulator.counters.requests == seen + 1
        assert emulator.counters.by_route["POST /v1/archives/{archive_id}/passages"] <= before + 1


@pytest.mark.parametrize(
    "answer",
    [
        HtmlWith200(),
        TruncatedJson(),
        Status(200, body={}),
        Status(200, body=[{"passage": {}, "score": 0.0}]),
        Status(200, body=[{"score": "high"}]),
    ],
)
async def test_an_answer_of_another_shape_is_a_provider_error(
    memory: AsyncMemory, emulator: Emulator, answer: Any
) -> None:
    await memory.add("tea", user_id="ann")
    emulator.faults.next(answer)
    with pytest.raises(ProviderError) as caught:
        await memory.search("tea", "ann")
    assert type(caught.value) is ProviderError
    emulator.faults.next(answer)
    with pytest.raises(ProviderError):
        await memory.list("ann")


async def test_a_passage_of_another_archive_in_an_answer_goes_no_further(
    memory: AsyncMemory, emulator: Emulator, raw: Sdk
) -> None:
    for user in ("ann", "bob"):
        await memory.add(f"of {user}", user_id=user)
    _, bobs = emulator.archives
    answer = raw.passages.with_raw_response.search(archive_id=bobs).json()
    emulator.faults.next(Status(200, body=answer))
    with pytest.raises(ProviderError, match="another archive"):
        await memory.search("of bob", "ann")


async def test_letta_without_an_archive_is_never_asked_to_search(memory: AsyncMemory, emulator: Emulator) -> None:
    assert await memory.search("tea", "ann") == []
    assert (await memory.list("ann")).items == []
    assert "POST /v1/passages/search" not in emulator.counters.by_route


async def test_a_slow_answer_ends_with_the_clients_timeout(emulator: Emulator) -> None:
    async with AsyncMemory(Letta(**emulator.provider_options()), timeout=0.5, retries=0) as memory:
        emulator.faults.next(Latency(5.0))
        with pytest.raises(ProviderTimeoutError):
            await memory.search("tea", "ann")


async def test_a_timeout_of_the_connection_itself_is_a_provider_timeout(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openproto_adapters.letta.provider.TIMEOUT", 0.2)
    async with AsyncMemory(Letta(**emulator.provider_options()), retries=0) as memory:
        emulator.faults.next(Latency(5.0))
        with pytest.raises(ProviderTimeoutError) as caught:
            await memory.search("tea", "ann")
        assert isinstance(caught.value.__cause__, sdk.APITimeoutError)


async def test_a_key_that_is_not_accepted_and_a_server_that_is_not_there_are_told_at_once(emulator: Emulator) -> None:
    with pytest.raises(UnauthorizedError, match="LETTA_API_KEY"):
        async with AsyncMemory(Letta(base_url=emulator.url, api_key=SECRET)):
            pass
    with pytest.raises(ProviderUnavailableError, match="base_url"):
        async with AsyncMemory(Letta(base_url="http://127.0.0.1:1", api_key=SECRET), retries=0):
            pass


async def test_the_environment_fills_in_what_was_not_given(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_BASE_URL", emulator.url)
    monkeypatch.setenv("LETTA_API_KEY", emulator.api_key)
    async with AsyncMemory(Letta()) as memory:
        await memory.add("tea", user_id="ann")
    with pytest.raises(ProviderUnavailableError):  # nothing is there, and LETTA_BASE_URL does not count
        async with AsyncMemory(Letta(environment="local"), retries=0):
            pass


@pytest.mark.parametrize("options", [{"base_url": "http://x", "environment": "local"}, {"width": 0}])
def test_options_that_cannot_work_are_refused_when_they_are_given(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"environment|width"):
        Letta(**options)


async def test_neither_the_log_nor_any_repr_holds_contents_or_the_key(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = Letta(**emulator.provider_options())
    async with AsyncMemory(provider, retries=0) as memory:
        await memory.add("the secret of the mountain", user_id="ann", idempotency_key="key-1")
        await memory.search("secret of the mountain", "ann")
        about = await provider.describe()
    told = f"{caplog.text} {provider!r} {provider._backend!r} {about}"
    assert "mountain" not in told
    assert emulator.api_key not in told
    assert about["server"].rstrip("/") == emulator.url
