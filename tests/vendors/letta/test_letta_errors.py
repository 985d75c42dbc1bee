"""What becomes of Letta's errors, and of answers that make no sense."""

from __future__ import annotations

from typing import Any

import letta_client as sdk
import pytest
from letta_client import Letta as Sdk
from openproto_adapters.letta import Letta
from openproto_conformance.emulators import (
    HtmlWith200,
    Latency,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.letta import Letta as Emulator

from openproto import (
    AsyncMemory,
    NotFoundError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

SECRET = "sk-let-correct-horse"


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


async def test_a_timeout_of_the_connection_itself_is_a_provider_timeout(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openproto_adapters.letta.provider.TIMEOUT", 0.2)
    async with AsyncMemory(Letta(**emulator.provider_options()), retries=0) as memory:
        emulator.faults.next(Latency(5.0))
        with pytest.raises(ProviderTimeoutError) as caught:
            await memory.search("tea", "ann")
        assert isinstance(caught.value.__cause__, sdk.APITimeoutError)


async def test_the_environment_fills_in_what_was_not_given(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTA_BASE_URL", emulator.url)
    monkeypatch.setenv("LETTA_API_KEY", emulator.api_key)
    async with AsyncMemory(Letta()) as memory:
        await memory.add("tea", user_id="ann")
    with pytest.raises(ProviderUnavailableError):  # nothing is there, and LETTA_BASE_URL does not count
        async with AsyncMemory(Letta(environment="local"), retries=0):
            pass
