"""What becomes of MemorySync's errors, of answers that make no sense, and of what the SDK raises as it comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from openproto_adapters.memorysync import MemorySync
from openproto_conformance.emulators import (
    CloseConnection,
    Drip,
    Hang,
    HtmlWith200,
    ResetConnection,
    Status,
    TruncatedJson,
)
from openproto_conformance.emulators.memorysync import MemorySync as Emulator

from openproto import (
    AsyncMemory,
    OpenProtoError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    UnauthorizedError,
)

SECRET = "ms_correct-horse"

Call: TypeAlias = Callable[[], Awaitable[object]]


def calls(memory: AsyncMemory, id: str) -> dict[str, Call]:
    """Every kind of request, one verb for each."""
    return {
        "/memory/bulk-add": lambda: memory.add("coffee", user_id="ann"),
        "/memory/query": lambda: memory.search("tea", "ann"),
        "/memory/[0-9]*": lambda: memory.get(id),
        "/memory/batch-update": lambda: memory.update(id, tags=["a"]),
        "/v1/memory/*/list": lambda: memory.list("ann"),
        "/memory/forget": lambda: memory.delete(id),
    }


@pytest.mark.parametrize(
    ("body", "retry_after"),
    [
        ({"error": {"code": "RATE_LIMIT_EXCEEDED", "retry_after": 7}}, 7.0),
        ({"retry_after": 0}, None),
        ({"detail": {"error": "limit_exceeded"}}, None),
    ],
)
async def test_when_to_try_again_is_known_only_where_memorysync_says_so(
    memory: AsyncMemory, emulator: Emulator, body: Any, retry_after: float | None
) -> None:
    emulator.faults.next(Status(429, body, retry_after=7))
    with pytest.raises(RateLimitedError) as caught:
        await memory.search("tea", "ann")
    assert caught.value.retry_after == retry_after


_SCORE = [{"id": 1, "score": "high"}]
WRONG: dict[str, tuple[Any, ...]] = {
    "/memory/bulk-add": (
        [],
        "x",
        {"results": [{}]},
        {"results": [{"index": 3, "status": "created"}]},
        {"results": [1]},
    ),
    "/memory/query": ([], {"memories": [{}]}, {"memories": [{"id": 1, "metadata": "x"}]}, {"memories": 3}),
    "/memory/[0-9]*": ({}, [], {"id": "x"}, {"id": 99}, {"id": None}, {"id": 1, "metadata": {"openproto": "{"}}),
    "/memory/batch-update": ([1], "x", {"results": [{}]}, {"results": [{"memory_id": 99, "status": "updated"}]}),
    "/v1/memory/*/list": ([], {"memories": [{}]}, {"memories": [{"memory_id": "../1"}]}, {"x": 1}, {"memories": [7]}),
    "/memory/forget": ("x", {"deleted": 1}, 7, [None], [True]),
}


@pytest.mark.parametrize("path", WRONG)
async def test_an_answer_of_a_wrong_shape_is_a_provider_error(
    memory: AsyncMemory, emulator: Emulator, path: str
) -> None:
    record = await memory.add("tea", user_id="ann")
    faults = [Status(200, body) for body in WRONG[path]]
    for fault in (*faults, HtmlWith200()):
        emulator.faults.next(fault, path=path)
        with pytest.raises(ProviderError) as caught:
            await calls(memory, record.id)[path]()
        assert type(caught.value) is ProviderError, fault
    with emulator.faults.always(TruncatedJson(), path=path), pytest.raises(ProviderError):
        await calls(memory, record.id)[path]()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (CloseConnection(), ProviderUnavailableError),
        (CloseConnection(mid_body=True), ProviderUnavailableError),
        (ResetConnection(), ProviderUnavailableError),
        (Hang(), ProviderTimeoutError),
    ],
)
async def test_a_connection_that_fails_is_a_typed_error_and_the_next_call_works(
    emulator: Emulator, fault: Any, expected: type[OpenProtoError]
) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), timeout=0.5), retries=0) as memory:
        record = await memory.add("tea", user_id="ann")
        for path, call in calls(memory, record.id).items():
            emulator.faults.next(fault, path=path)
            with pytest.raises(expected):
                await call()
        assert await memory.search("tea", "bob") == []


@pytest.mark.promise(16)
async def test_the_timeout_bounds_an_answer_that_comes_byte_by_byte(emulator: Emulator) -> None:
    async with AsyncMemory(MemorySync(**emulator.provider_options(), timeout=0.3), retries=0) as memory:
        emulator.faults.next(Drip(0.05), path="/memory/query")
        with pytest.raises(ProviderTimeoutError):
            await memory.search("tea", "ann")


@pytest.mark.parametrize("lists_projects", [True, False])
async def test_a_wrong_key_is_told_when_the_client_opens(emulator: Emulator, lists_projects: bool) -> None:
    emulator.lists_projects = lists_projects
    with pytest.raises(UnauthorizedError):
        await AsyncMemory(MemorySync(base_url=emulator.url, api_key=SECRET)).__aenter__()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Status(200, {"projects": []}), ProviderError),
        (Status(200, [{"id": "proj_1"}]), ProviderError),
        (HtmlWith200(), ProviderError),
        (Status(503), ProviderUnavailableError),
    ],
)
async def test_a_tenant_that_cannot_be_learned_is_told_when_the_client_opens(
    emulator: Emulator, answer: Any, expected: type[OpenProtoError]
) -> None:
    with emulator.faults.always(answer, path="/org/projects"), pytest.raises(expected) as caught:
        await AsyncMemory(MemorySync(**emulator.provider_options())).__aenter__()
    assert type(caught.value) is expected


@pytest.mark.parametrize("options", [{"api_key": "a\r\nb"}, {"api_key": "kéy"}, {"project_id": "a b"}, {"timeout": 0}])
def test_options_that_no_request_could_carry_are_refused_when_a_provider_is_made(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        MemorySync(**options)
    assert "kéy" not in str(caught.value)
