"""Every vendor's error statuses, wrong keys, options that lead nowhere, and openings that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hosted import HOSTED, STATUSES, Hosted
from openproto_conformance.emulators import CloseConnection, ResetConnection, Status

from openproto import (
    AsyncMemory,
    OpenProtoError,
    Provider,
    ProviderUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)
from openproto.registry import make_provider

SECRET = "the secret of the mountain"
WRONG_KEY = "sk-correct-horse"


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_is_an_error_without_its_words(
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


async def test_retry_after_is_known_where_it_is_passed_on(hosted: Hosted, memory: AsyncMemory, emulator: Any) -> None:
    await memory.add("tea", user_id="ann")
    for body, header, expected in (
        ({"error": {"code": "RATE_LIMIT_EXCEEDED", "retry_after": 7}}, "7", 7.0),
        ({"retry_after": 0}, "tomorrow", None),
        ({"detail": {"error": "usage_limit_exceeded"}}, "", None),
    ):
        emulator.faults.next(Status(429, body, headers={"retry-after": header}), path=hosted.search)
        with pytest.raises(RateLimitedError) as caught:
            await memory.search("tea", "ann")
        assert caught.value.retry_after == (expected if hosted.says_when_to_return else None)


async def test_a_refused_write_is_sent_once(memory: AsyncMemory, emulator: Any) -> None:
    await memory.add("first", user_id="ann")
    for fault in (Status(409), Status(429), Status(503), CloseConnection(applied=False)):
        before = emulator.counters.requests
        emulator.faults.next(fault, method="POST", path=emulator.add_path)
        with pytest.raises(OpenProtoError):
            await memory.add("tea", user_id="ann")
        assert emulator.counters.requests == before + 1


@pytest.mark.parametrize("fault", [CloseConnection(applied=True), ResetConnection(applied=True)])
async def test_a_lost_answer_is_no_second_memory(hosted: Hosted, emulator: Any, tmp_path: Path, fault: Any) -> None:
    async with hosted.client(emulator, tmp_path, retries=2) as memory:
        await memory.add("first", user_id="ann")
        for key in (None, "key-1"):
            emulator.faults.next(fault, method="POST", path=emulator.add_path)
            record = await memory.add(f"tea {key}", user_id="ann", idempotency_key=key)
            assert (await memory.get(record.id)).content == f"tea {key}"
        contents = sorted([record.content async for record in memory.iter("ann")])
    assert contents == ["first", "tea None", "tea key-1"]


async def test_opening_reports_a_wrong_key_and_an_absent_server(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        *((one.name, {"api_key": "k", one.width: 0}, one.width) for one in HOSTED),
        ("memori", {"width": 0}, "width"),
        ("letta", {"base_url": "http://127.0.0.1", "environment": "local"}, "not both"),
        ("mem0", {"api_key": "k", "path": "x"}, "of the library"),
        ("mem0", {"config": {"embedder": {"provider": "openai"}}, "embedder": "local"}, "not both"),
        ("mem0", {"infer": True}, "needs a language model"),
        ("mem0", {"embedder": "lokal"}, "no embedder 'lokal'"),
        ("memorysync", {"api_key": "kéy"}, "api_key must be visible ASCII"),
        ("memorysync", {"api_key": "a\r\nb"}, "api_key must be visible ASCII"),
        ("memorysync", {"project_id": "a b"}, "project_id"),
        ("memorysync", {"timeout": 0}, "timeout"),
        ("memsy", {"base_url": "https://ann:kéy@example.com/v1"}, "base_url must not hold"),
        ("memsy", {"wait": -1}, "wait"),
        ("supermemory", {"base_url": "https://ann:kéy@example.com"}, "base_url must not hold"),
        ("supermemory", {"task_type": "both"}, "task_type"),
        ("supermemory", {"dreaming": "instant"}, "task_type='memory'"),
        ("supermemory", {"task_type": "memory", "dreaming": "lucid"}, "dreaming"),
        ("supermemory", {"wait": "done"}, "wait"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as caught:
        make_provider(name, options)
    assert "kéy" not in str(caught.value)


async def every_write_works(provider: Provider) -> None:
    """Update, supersede, and put through the client of a provider."""
    async with AsyncMemory(provider) as memory:
        old = await memory.add("tea", user_id="ann")
        assert (await memory.update(old.id, content="green tea")).content == "green tea"
        new = await memory.add("coffee", user_id="ann", supersedes=[old.id])
        assert (await memory.get(old.id)).superseded_by == new.id
        assert (await memory.put("water", user_id="ann", key="drink")).key == "drink"


async def test_after_one_failed_opening_everything_works(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    provider = hosted.make(emulator, tmp_path)
    with emulator.faults.always(Status(503)), pytest.raises(OpenProtoError):
        await provider.open()
    with pytest.raises(RuntimeError, match="is not open"):
        await provider.health()
    await every_write_works(provider)


async def test_a_provider_that_is_not_open_says_why(hosted: Hosted, emulator: Any, tmp_path: Path) -> None:
    provider = hosted.make(emulator, tmp_path)
    for verb in (provider.health, provider.describe):
        with pytest.raises(RuntimeError, match=f"the {hosted.name} provider is not open"):
            await verb()
    await provider.open()
    await provider.close()
    with pytest.raises(ProviderUnavailableError, match="closed while"):
        await provider.health()
    fresh = provider.fresh()
    assert type(fresh) is type(provider)
    with pytest.raises(RuntimeError, match="is not open"):
        await fresh.health()
