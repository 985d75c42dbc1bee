"""Every limit of PROTOCOL section 1, held before any I/O, at its boundary and one beyond."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any

import pytest
from fake_provider import NOON, FakeProvider
from openproto_conformance.cases.errors import INVALID, MARKER

from openproto import AsyncMemory, InvalidRequestError, MemoryInput, MemorySource
from openproto.requests import fingerprint


async def ask(verb: str, fields: dict[str, Any]) -> FakeProvider:
    """Call `verb` with `fields` on top of what it needs, and return the provider that was asked."""
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await getattr(memory, verb)(**{**INVALID[verb][1], **fields})
    return provider


async def refuse(verb: str, fields: dict[str, Any]) -> str:
    """Check that the call is refused before the backend is opened, and return the message, which holds no content."""
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    try:
        with pytest.raises(InvalidRequestError) as caught:
            await getattr(memory, verb)(**{**INVALID[verb][1], **fields})
    finally:
        await memory.aclose()
    assert (provider.opens, provider.calls) == (0, [])
    assert caught.value.__cause__ is None
    assert MARKER not in caught.value.message
    return caught.value.message


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


class NoOffset(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None


NUL, LOW, HIGH = f"{MARKER}\0", f"{MARKER}\udfff", f"{MARKER}\ud800"
EAST = timezone(timedelta(hours=14))
BEYOND: dict[tuple[str, str], tuple[Any, ...]] = {
    ("add", "content"): ("x" * 100_001, " \t\r\n\u3000", [MARKER], LOW),
    ("add", "user_id"): (MARKER * 50,),
    ("add", "scope"): (f"a/{NUL}", f"a/{HIGH}", f"{MARKER}//x", f"*{MARKER}"),
    ("add", "tags"): ({"tea"}, [None], [MARKER * 10], ["fine", LOW]),
    ("add", "source"): (
        *({"app": ""}, {"app": "a" * 257}, {"type": MARKER}, {"ref": NUL}, {"app": HIGH}, {"colour": "red"}),
        *(MARKER, MemorySource.model_validate({"app": "a", "colour": "red"})),
    ),
    ("add", "supersedes"): ([["m1"]], [{}], ["i" * 513], [HIGH], [NUL]),
    ("add", "confidence"): (MARKER, float("-inf")),
    ("add", "idempotency_key"): ("k" * 257, MARKER * 50, HIGH),
    ("add", "valid_from"): (
        *(NOON.timestamp(), date(2026, 1, 1), MARKER),
        *(datetime(2026, 1, 1, tzinfo=NoOffset()), datetime(1, 1, 1, tzinfo=EAST)),
    ),
    ("update", "content"): (NUL, LOW),
    ("update", "confidence"): (2,),
    ("update", "scope"): ("a//b", NUL),
    ("update", "tags"): ([HIGH],),
    ("update", "valid_to"): ("2026-01-01", MARKER),
    ("update", "supersedes"): ([NUL],),
    ("list", "cursor"): (MARKER * 50, NUL, LOW),
    ("list", "limit"): (5.0,),
    ("list", "tag"): (HIGH,),
    ("search", "query"): ("q" * 100_001, NUL),
    ("search", "tag"): (HIGH,),
    ("context", "query"): (HIGH,),
    ("audit", "app"): (HIGH,),
    ("audit", "memory_id"): (HIGH,),
    ("get", "id"): ("i" * 513, NUL),
    ("delete", "id"): ("i" * 513,),
    ("delete_all", "tag"): (HIGH,),
}


@pytest.mark.parametrize("verb", INVALID)
async def test_what_is_beyond_a_limit_or_cannot_be_stored_is_refused_before_any_io_by_the_fields_name(
    verb: str,
) -> None:
    beyond = {field: values for (of_verb, field), values in BEYOND.items() if of_verb == verb}
    for table in (INVALID[verb][0], beyond):
        for field, values in table.items():
            for value in values:
                assert field in await refuse(verb, {field: value})


@pytest.mark.parametrize(
    ("keyword", "key"), [("x_mem0", "x-mem0"), ("x_my_store", "x-my-store"), ("x-mem0", "x-mem0"), ("x_9", "x-9")]
)
async def test_an_extension_keyword_is_the_spelling_of_its_wire_key(keyword: str, key: str) -> None:
    value = {"a": [1, 2.5, None, True, "s"], "b": {}}
    provider = await ask("add", {keyword: value})
    assert provider.inputs[0].extensions == {key: value}


async def test_an_extension_with_a_malformed_key_or_that_is_not_json_is_refused() -> None:
    for end in ("", "é", "a b", "a\n", "a/b", "a" * 128, "-a", "a\0b", "a\udfffb"):
        await refuse("add", {f"x-{end}": 1})
    for value in (
        *(object(), {1, 2}, {MARKER}, b"bytes", NOON, {1: "a"}, {b"bytes": "a"}, {None: 1}, {MARKER: object()}),
        *(float("nan"), [float("-inf")], deep(101), deep(5_000), 10**5000, {"k": HIGH}, [{"deep": [LOW]}], {HIGH: 1}),
    ):
        await refuse("add", {"x_mem0": value})


async def test_every_fault_is_named_at_once() -> None:
    message = await refuse("add", {"content": "", "confidence": 2, "tags": [""]})
    assert all(f"{name}: " in message for name in ("content", "confidence", "tags.0"))


async def test_superseded_ids_lose_their_duplicates_and_keep_their_order() -> None:
    provider = await ask("add", {"supersedes": ["b", "a", "b"]})
    assert provider.inputs[0].supersedes == ["b", "a"]


async def test_a_listing_with_a_page_size_out_of_range_is_refused() -> None:
    provider = FakeProvider()
    with pytest.raises(InvalidRequestError):
        await anext(AsyncMemory(provider).iter("ada", page_size=501))
    assert provider.opens == 0


def test_two_inputs_share_a_fingerprint_only_when_they_are_the_same() -> None:
    fields = {"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 2}, "tags": ["t"]}
    same = {"tags": ["t"], "x-b": {"q": 2, "p": 1}, "user_id": "ada", "content": "tea"}
    others: list[dict[str, Any]] = [
        *({"content": "tea "}, {"user_id": "bob"}, {"x-b": {"p": 1, "q": 3}}),
        *({"tags": None}, {"scope": "s"}, {"valid_from": NOON}),
    ]
    one = fingerprint(MemoryInput.model_validate(fields))
    assert fingerprint(MemoryInput.model_validate(same)) == one
    for other in others:
        assert fingerprint(MemoryInput.model_validate({**fields, **other})) != one


@pytest.mark.promise(110)
@pytest.mark.parametrize("option", ["timeout", "close_timeout", "max_concurrency"])
def test_a_bound_of_0_is_refused_when_the_client_is_made(option: str) -> None:
    with pytest.raises(ValueError, match=f"^{option} must be "):
        AsyncMemory(FakeProvider(), **{option: 0})  # type: ignore[arg-type]
