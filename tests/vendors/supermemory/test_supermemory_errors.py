"""Supermemory's errors become the protocol's, by class; none repeats a key or a memory."""

from __future__ import annotations

from typing import Any

import pytest
from openproto_adapters.supermemory import Supermemory
from openproto_conformance.emulators import Status
from openproto_conformance.emulators.supermemory import Supermemory as Emulator

from openproto import (
    AsyncMemory,
    ProviderError,
    ProviderUnavailableError,
    RateLimitedError,
)

SECRET = "the secret of the memory"


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


async def test_what_is_said_of_a_quota_is_quoted_without_the_key(memory: AsyncMemory, emulator: Emulator) -> None:
    body = {"error": f"Out of credits for {emulator.api_key}: upgrade at supermemory.ai" + "!" * 1000}
    emulator.faults.next(Status(402, body=body), path="*/document")
    with pytest.raises(RateLimitedError, match="Out of credits for \\*\\*\\*: upgrade") as caught:
        await memory.add(SECRET, user_id="ada")
    assert len(str(caught.value)) < 300


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
