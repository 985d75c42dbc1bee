"""What becomes of every vendor's errors, of its broken answers, and of options that lead nowhere."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hosted import STATUSES, Hosted
from openproto_conformance.emulators import (
    CloseConnection,
    Drip,
    HtmlWith200,
    ResetConnection,
    Status,
    TruncatedJson,
)

from openproto import (
    AsyncMemory,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)

SECRET = "the secret of the mountain"
WRONG_KEY = "sk-correct-horse"


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_is_the_error_that_it_means_without_the_vendors_words(
    hosted: Hosted, memory: AsyncMemory, emulator: Any, status: int
) -> None:
    await memory.add("tea", user_id="ann")
    expected = hosted.statuses.get(status, STATUSES[status])
    for path, call in (
        (emulator.add_path, lambda: memory.add(SECRET, user_id="ann")),
        (hosted.search, lambda: memory.search(SECRET, "ann")),
    ):
        fault = Status(status, body={"detail": f"not with {SECRET}"})
        with emulator.faults.always(fault, method="POST", path=path), pytest.raises(OpenProtoError) as caught:
            await call()
        error = caught.value
        assert (type(error), error.retryable, error.provider) == (expected, expected.retryable, hosted.name)
        assert error.__cause__ is not None
        assert SECRET not in str(error)


async def test_when_to_return_is_known_where_the_sdk_passes_it_on(
    hosted: Hosted, memory: AsyncMemory, emulator: Any
) -> None:
    await memory.add("tea", user_id="ann")
    body = {"error": {"code": "RATE_LIMIT_EXCEEDED", "retry_after": 7}}
    emulator.faults.next(Status(429, body, retry_after=7), path=hosted.search)
    with pytest.raises(RateLimitedError) as caught:
        await memory.search("tea", "ann")
    assert caught.value.retry_after == (7.0 if hosted.says_when_to_return else None)
    emulator.faults.next(Status(429, {"retry_after": 0}, headers={"retry-after": "tomorrow"}), path=hosted.search)
    with pytest.raises(RateLimitedError) as caught:
        await memory.search("tea", "ann")
    assert caught.value.retry_after is None


async def test_a_refused_write_is_sent_once(memory: AsyncMemory, emulator: Any) -> None:
    await memory.add("first", user_id="ann")
    for fault in (Status(409), Status(429), Status(503), CloseConnection(applied=False)):
        before = emulator.counters.requests
        emulator.faults.next(fault, method="POST", path=emulator.add_path)
        with pytest.raises(OpenProtoError):
            await memory.add("tea", user_id="ann")
        assert emulator.counters.requests == before + 1


@pytest.mark.parametrize("fault", [CloseConnection(applied=True), ResetConnection(applied=True)])
async def test_a_write_whose_answer_is_lost_is_stored_once_by_a_client_that_retries(
    hosted: Hosted, emulator: Any, tmp_path: Path, fault: Any
) -> None:
    async with hosted.client(emulator, tmp_path, retries=2) as memory:
        await memory.add("first", user_id="ann")
        for key in (None, "key-1"):
            emulator.faults.next(fault, method="POST", path=emulator.add_path)
            record = await memory.add(f"tea {key}", user_id="ann", idempotency_key=key)
            assert (await memory.get(record.id)).content == f"tea {key}"
        contents = sorted([record.content async for record in memory.iter("ann")])
    assert contents == ["first", "tea None", "tea key-1"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (HtmlWith200(), ProviderError),
        (TruncatedJson(), ProviderError),
        (Status(200, body=b"\xff\xfe"), ProviderError),
        (Status(200, body=["no object"]), ProviderError),
        (CloseConnection(), ProviderUnavailableError),
        (CloseConnection(mid_body=True), ProviderUnavailableError),
        (ResetConnection(), ProviderUnavailableError),
    ],
    ids=repr,
)
async def test_a_broken_answer_is_a_typed_error_and_the_next_call_works(
    hosted: Hosted, memory: AsyncMemory, emulator: Any, fault: Any, expected: type[OpenProtoError]
) -> None:
    await memory.add("tea", user_id="ann")
    with emulator.faults.always(fault, path=hosted.search), pytest.raises(OpenProtoError) as caught:
        await memory.search(SECRET, "ann")
    assert type(caught.value) is expected
    assert SECRET not in str(caught.value)
    assert await memory.search("tea", "bob") == []


async def test_the_clients_timeout_bounds_an_answer_that_comes_byte_by_byte(
    hosted: Hosted, emulator: Any, tmp_path: Path
) -> None:
    async with hosted.client(emulator, tmp_path, timeout=1.0) as memory:
        await memory.add("tea", user_id="ann")
        with emulator.faults.always(Drip(0.5), path=hosted.search), pytest.raises(ProviderTimeoutError):
            await memory.search("tea", "ann")


async def test_neither_the_log_nor_any_repr_holds_contents_or_the_key(
    hosted: Hosted, emulator: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    provider = hosted.make(emulator, tmp_path)
    async with AsyncMemory(provider, retries=0) as memory:
        record = await memory.add(SECRET, user_id="ann", idempotency_key="key-1")
        await memory.update(record.id, content=f"{SECRET}, again")
        await memory.search(SECRET, "ann")
        shown = f"{caplog.text} {provider!r} {await provider.describe()}"
    assert "mountain" not in shown
    assert emulator.api_key not in shown


async def test_a_wrong_key_and_an_absent_server_are_reported_when_the_client_opens_without_the_key(
    hosted: Hosted, emulator: Any, tmp_path: Path
) -> None:
    changes: tuple[tuple[dict[str, Any], type[OpenProtoError]], ...] = (
        ({"api_key": WRONG_KEY}, UnauthorizedError),
        ({"api_key": WRONG_KEY, "base_url": "http://127.0.0.1:1"}, ProviderUnavailableError),
    )
    for change, expected in changes:
        with pytest.raises(expected) as caught:
            async with hosted.client(emulator, tmp_path, **change):
                pass
        assert WRONG_KEY not in f"{caught.value!r} {hosted.make(emulator, tmp_path, **change)!r}"


@pytest.mark.promise(8)
async def test_key_and_address_come_from_the_environment_and_a_missing_key_is_named(
    hosted: Hosted, emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = emulator.provider_options()
    address = {}
    for variable, option in ((hosted.key_variable, "api_key"), (hosted.url_variable, "base_url")):
        if variable:
            monkeypatch.delenv(variable, raising=False)
            monkeypatch.setenv(variable, options[option])
        elif option == "base_url":
            address = {"base_url": options["base_url"]}
    if hosted.key_variable:
        with monkeypatch.context() as without:
            without.delenv(hosted.key_variable)
            with pytest.raises(UnauthorizedError, match=hosted.key_variable):
                async with AsyncMemory(hosted.provider(**address)):
                    pass
        assert emulator.counters.requests == 0
    else:
        address |= {"api_key": options["api_key"]}
    async with AsyncMemory(hosted.provider(**address)) as memory:
        assert (await memory.add("tea", user_id="ann")).content == "tea"
    assert emulator.counters.by_route[hosted.adds] == 1


def test_a_call_before_opening_is_refused_in_words(hosted: Hosted) -> None:
    with pytest.raises(RuntimeError, match="not open"):
        hosted.provider(base_url="http://127.0.0.1:1", api_key="k").store_name()  # type: ignore[attr-defined]


def test_a_width_of_nothing_is_refused_when_a_provider_is_made(hosted: Hosted) -> None:
    with pytest.raises(ValueError, match=hosted.width):
        hosted.provider(**{"api_key": "k", hosted.width: 0})
