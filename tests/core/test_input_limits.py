"""Every limit of PROTOCOL section 1, held before any I/O, at its boundary and one beyond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_provider import NOON, FakeProvider
from hypothesis import given
from hypothesis import strategies as st
from openproto_conformance.cases.errors import INVALID

from openproto import AsyncMemory, InvalidRequestError, MemoryInput, MemorySource
from openproto.requests import Filters, build


async def ask(verb: str, fields: dict[str, Any]) -> FakeProvider:
    """Call `verb` with `fields` on top of what it needs, and return the provider that was asked."""
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await getattr(memory, verb)(**{**INVALID[verb][1], **fields})
    return provider


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


MANY = [f"t{n}" for n in range(64)]
AT_THE_LIMIT: dict[str, list[dict[str, Any]]] = {
    "add": [
        {"content": "x" * 100_000, "user_id": "u" * 256, "scope": "s" * 512, "tags": MANY},
        {"content": "é" * 100_000, "tags": ["t" * 128], "idempotency_key": "k" * 256},
        {"content": " \n leading and trailing \t", "scope": "a/b c/_%?[", "tags": [], "confidence": 0.0},
        {"confidence": 1, "source": MemorySource(app="a", type="explicit"), "supersedes": ["m1", "m2"]},
        {"x_mem0": deep(100), "valid_from": NOON, "valid_to": NOON + timedelta(microseconds=1)},
        {"valid_from": datetime.min.replace(tzinfo=UTC), "valid_to": datetime.max.replace(tzinfo=UTC)},
    ],
    "update": [
        {"content": "x" * 100_000, "tags": MANY},
        dict.fromkeys(("scope", "tags", "confidence", "valid_to", "supersedes")),
    ],
    "list": [{"limit": 1}, {"limit": 500}],
    "search": [
        {"limit": 1, "min_score": 0.0, "query": "q" * 100_000},
        {"limit": 100, "min_score": 1.0, "tag": "t" * 128},
    ],
    "context": [{"token_budget": 1}, {"token_budget": 1_000_000}],
    "audit": [{"limit": 1}, {"limit": 1000}],
    "get": [{"id": "i" * 512}],
}


@pytest.mark.parametrize("verb", AT_THE_LIMIT)
async def test_values_at_their_limits_are_accepted(verb: str) -> None:
    for fields in AT_THE_LIMIT[verb]:
        provider = await ask(verb, fields)
        assert provider.calls[0] == ("search" if verb == "context" else verb)


@pytest.mark.parametrize("end", ["", "é", "a b", "a\n", "a/b", "a" * 128, "-a", "a\0b", "a\udfffb"])
async def test_an_extension_with_a_malformed_key_is_refused(end: str) -> None:
    with pytest.raises(InvalidRequestError):
        await ask("add", {f"x-{end}": 1})


async def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidRequestError, match=r"(?s)content: .*tags\.0: .*confidence: "):
        await ask("add", {"content": "", "confidence": 2, "tags": [""]})


async def test_superseded_ids_lose_their_duplicates_and_keep_their_order() -> None:
    provider = await ask("add", {"supersedes": ["b", "a", "b"]})
    assert provider.inputs[0].supersedes == ["b", "a"]


async def test_a_listing_with_a_page_size_out_of_range_is_refused() -> None:
    provider = FakeProvider()
    with pytest.raises(InvalidRequestError):
        await anext(AsyncMemory(provider).iter("ada", page_size=501))
    assert provider.opens == 0


@pytest.mark.promise(110)
@pytest.mark.parametrize("option", ["timeout", "close_timeout", "max_concurrency"])
def test_a_bound_of_0_is_refused_when_the_client_is_made(option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be "):
        AsyncMemory(FakeProvider(), **{option: 0})  # type: ignore[arg-type]


# Any character but the two that mean something, and those that no string may hold.
SEGMENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/*\0"), min_size=1, max_size=8)
PATH = st.lists(SEGMENT.filter(lambda text: not text.isspace()), min_size=1, max_size=4).map("/".join)


@given(PATH | st.just("s" * 512))
def test_a_path_is_stored_as_given_and_its_three_spellings_are_one_filter(path: str) -> None:
    assert build(MemoryInput, content="tea", user_id="ada", scope=path).scope == path
    assert {build(Filters, user_id="ada", scope=f"{path}{end}").scope for end in ("", "/", "/*")} == {path}
    assert build(Filters, user_id="ada", scope="*").scope is None
