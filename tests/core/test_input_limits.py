"""Every limit of PROTOCOL section 1, held before any I/O, at its boundary and one beyond."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, TypeAlias

import pytest
from fake_provider import NOON, FakeProvider
from hypothesis import given
from hypothesis import strategies as st

from openproto import AsyncMemory, InvalidRequestError, MemoryInput, MemorySource
from openproto.requests import fingerprint

Bad: TypeAlias = dict[str, Any]
SECRET = "correct horse battery staple"

NEEDS: dict[str, dict[str, Any]] = {
    "add": {"content": "tea", "user_id": "ada"},
    "get": {"id": "m1"},
    "update": {"id": "m1"},
    "delete": {"id": "m1"},
    "list": {"user_id": "ada"},
    "search": {"query": "tea", "user_id": "ada"},
    "context": {"query": "tea", "user_id": "ada"},
    "audit": {"user_id": "ada"},
    "delete_all": {"user_id": "ada"},
}


async def ask(verb: str, fields: dict[str, Any]) -> FakeProvider:
    """Call `verb` with `fields` on top of what it needs, and return the provider that was asked."""
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await getattr(memory, verb)(**{**NEEDS[verb], **fields})
    return provider


async def refuse(verb: str, fields: dict[str, Any]) -> str:
    """Check that the call is refused before the backend is opened, and return the message."""
    provider = FakeProvider()
    memory = AsyncMemory(provider)
    try:
        with pytest.raises(InvalidRequestError) as caught:
            await getattr(memory, verb)(**{**NEEDS[verb], **fields})
    finally:
        await memory.aclose()
    assert (provider.opens, provider.calls) == (0, [])
    assert caught.value.__cause__ is None
    return caught.value.message


def many(n: int) -> list[str]:
    return [f"t{i}" for i in range(n)]


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


AT_THE_LIMIT: list[tuple[str, str, Any]] = [
    ("add", "content", "x" * 100_000),
    ("add", "content", "é" * 100_000),
    ("add", "content", " \n leading and trailing \t"),
    ("add", "user_id", "u" * 256),
    ("add", "scope", "s" * 512),
    ("add", "scope", "a/b c/_%?["),
    ("add", "tags", many(64)),
    ("add", "tags", []),
    ("add", "tags", ["t" * 128]),
    ("add", "confidence", 0.0),
    ("add", "confidence", 1.0),
    ("add", "confidence", 1),
    ("add", "idempotency_key", "k" * 256),
    ("add", "source", {"app": "a", "type": "extracted", "ref": "r"}),
    ("add", "source", MemorySource(app="a", type="explicit")),
    ("add", "source", {"type": "imported"}),
    ("add", "supersedes", ["m1", "m2"]),
    ("add", "valid_from", datetime(1, 1, 1, tzinfo=UTC)),
    ("add", "valid_to", datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
    ("add", "x_mem0", deep(100)),
    ("update", "content", "x" * 100_000),
    ("update", "tags", many(64)),
    ("update", "scope", None),
    ("update", "tags", None),
    ("update", "confidence", None),
    ("update", "valid_to", None),
    ("update", "supersedes", None),
    ("list", "limit", 1),
    ("list", "limit", 500),
    ("search", "limit", 1),
    ("search", "limit", 100),
    ("search", "min_score", 0.0),
    ("search", "min_score", 1.0),
    ("search", "query", "q" * 100_000),
    ("search", "tag", "t" * 128),
    ("context", "token_budget", 1),
    ("context", "token_budget", 1_000_000),
    ("audit", "limit", 1),
    ("audit", "limit", 1000),
    ("get", "id", "i" * 512),
]


@pytest.mark.parametrize(("verb", "field", "value"), AT_THE_LIMIT)
async def test_a_value_at_the_limit_is_taken(verb: str, field: str, value: Any) -> None:
    provider = await ask(verb, {field: value})
    assert provider.calls[0] == ("search" if verb == "context" else verb)


class NoOffset(tzinfo):
    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None


NAIVE = datetime(2026, 1, 1)
EAST = timezone(timedelta(hours=14))

BEYOND: list[tuple[str, str, Any]] = [
    ("add", "content", "x" * 100_001),
    ("add", "content", ""),
    ("add", "content", " \t\r\n\u3000"),
    ("add", "content", None),
    ("add", "content", b"tea"),
    ("add", "content", 5),
    ("add", "user_id", "u" * 257),
    ("add", "user_id", ""),
    ("add", "user_id", "  "),
    ("add", "user_id", None),
    ("add", "user_id", 7),
    ("add", "scope", "s" * 513),
    ("add", "scope", ""),
    ("add", "scope", " "),
    ("add", "tags", many(65)),
    ("add", "tags", ["t" * 129]),
    ("add", "tags", [""]),
    ("add", "tags", [" "]),
    ("add", "tags", "tea"),
    ("add", "tags", {"tea"}),
    ("add", "tags", [1]),
    ("add", "tags", [None]),
    ("add", "confidence", -0.001),
    ("add", "confidence", 1.001),
    ("add", "confidence", float("nan")),
    ("add", "confidence", float("inf")),
    ("add", "confidence", "0.5"),
    ("add", "confidence", True),
    ("add", "idempotency_key", "k" * 257),
    ("add", "idempotency_key", ""),
    ("add", "idempotency_key", " "),
    ("add", "idempotency_key", 1),
    ("add", "source", "app"),
    ("add", "source", {"app": ""}),
    ("add", "source", {"app": "a" * 257}),
    ("add", "source", {"type": "overheard"}),
    ("add", "source", {"colour": "red"}),
    ("add", "source", {"app": 1}),
    ("add", "source", MemorySource.model_validate({"app": "a", "colour": "red"})),
    ("add", "supersedes", "m1"),
    ("add", "supersedes", [""]),
    ("add", "supersedes", [1]),
    ("add", "supersedes", [["m1"]]),
    ("add", "supersedes", [{}]),
    ("add", "supersedes", ["i" * 513]),
    ("add", "valid_from", NAIVE),
    ("add", "valid_from", NOON.timestamp()),
    ("add", "valid_from", date(2026, 1, 1)),
    ("add", "valid_from", datetime(2026, 1, 1, tzinfo=NoOffset())),
    ("add", "valid_from", datetime(1, 1, 1, tzinfo=EAST)),
    ("add", "valid_to", NAIVE),
    ("update", "content", None),
    ("update", "content", ""),
    ("update", "content", "x" * 100_001),
    ("update", "scope", "a//b"),
    ("update", "tags", many(65)),
    ("update", "confidence", 2),
    ("update", "confidence", "1"),
    ("update", "valid_to", NAIVE),
    ("update", "valid_to", "2026-01-01"),
    ("update", "supersedes", ["m1"]),
    ("update", "supersedes", "m2"),
    ("update", "user_id", ""),
    ("list", "limit", 0),
    ("list", "limit", 501),
    ("list", "limit", True),
    ("list", "limit", 5.0),
    ("list", "limit", "5"),
    ("list", "limit", None),
    ("list", "since", NAIVE),
    ("list", "until", NAIVE),
    ("list", "as_of", NAIVE),
    ("list", "cursor", ""),
    ("list", "cursor", "c" * 257),
    ("list", "cursor", 1),
    ("list", "tag", ""),
    ("list", "tag", "t" * 129),
    ("list", "user_id", " "),
    ("search", "limit", 0),
    ("search", "limit", 101),
    ("search", "min_score", -0.1),
    ("search", "min_score", 1.1),
    ("search", "min_score", float("nan")),
    ("search", "query", ""),
    ("search", "query", " "),
    ("search", "query", "q" * 100_001),
    ("search", "as_of", NAIVE),
    ("search", "user_id", ""),
    ("context", "token_budget", 0),
    ("context", "token_budget", -1),
    ("context", "token_budget", 1.5),
    ("context", "query", ""),
    ("context", "as_of", NAIVE),
    ("audit", "limit", 0),
    ("audit", "limit", 1001),
    ("audit", "app", ""),
    ("audit", "memory_id", ""),
    ("audit", "since", NAIVE),
    ("audit", "user_id", ""),
    ("get", "id", ""),
    ("get", "id", " "),
    ("get", "id", "i" * 513),
    ("get", "id", None),
    ("get", "id", 5),
    ("get", "user_id", ""),
    ("get", "user_id", " "),
    ("delete", "id", ""),
    ("delete", "user_id", ""),
    ("delete_all", "user_id", ""),
    ("delete_all", "user_id", None),
    ("delete_all", "tag", ""),
]


@pytest.mark.promise(8)
@pytest.mark.promise(32)
@pytest.mark.promise(111)
@pytest.mark.parametrize(("verb", "field", "value"), BEYOND)
async def test_a_value_beyond_the_limit_is_refused_before_any_io(verb: str, field: str, value: Any) -> None:
    assert field in await refuse(verb, {field: value})


STRINGS: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("add", lambda s: {"content": s}),
    ("add", lambda s: {"user_id": s}),
    ("add", lambda s: {"scope": s}),
    ("add", lambda s: {"scope": f"a/{s}"}),
    ("add", lambda s: {"tags": ["fine", s]}),
    ("add", lambda s: {"source": {"app": s}}),
    ("add", lambda s: {"source": {"ref": s}}),
    ("add", lambda s: {"supersedes": [s]}),
    ("add", lambda s: {"idempotency_key": s}),
    ("add", lambda s: {"x_mem0": s}),
    ("add", lambda s: {"x_mem0": [{"deep": [s]}]}),
    ("add", lambda s: {"x_mem0": {s: 1}}),
    ("add", lambda s: {"x-" + s: 1}),
    ("get", lambda s: {"id": s}),
    ("get", lambda s: {"user_id": s}),
    ("update", lambda s: {"id": s}),
    ("update", lambda s: {"user_id": s}),
    ("update", lambda s: {"content": s}),
    ("update", lambda s: {"scope": s}),
    ("update", lambda s: {"tags": [s]}),
    ("update", lambda s: {"supersedes": [s]}),
    ("delete", lambda s: {"id": s}),
    ("delete", lambda s: {"user_id": s}),
    ("list", lambda s: {"user_id": s}),
    ("list", lambda s: {"scope": s}),
    ("list", lambda s: {"tag": s}),
    ("list", lambda s: {"cursor": s}),
    ("search", lambda s: {"query": s}),
    ("search", lambda s: {"user_id": s}),
    ("search", lambda s: {"scope": s}),
    ("search", lambda s: {"tag": s}),
    ("context", lambda s: {"query": s}),
    ("context", lambda s: {"user_id": s}),
    ("audit", lambda s: {"user_id": s}),
    ("audit", lambda s: {"app": s}),
    ("audit", lambda s: {"memory_id": s}),
    ("delete_all", lambda s: {"user_id": s}),
    ("delete_all", lambda s: {"scope": s}),
]


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b", "\udfff"], ids=["nul", "high surrogate", "low surrogate"])
@pytest.mark.parametrize(("verb", "make"), STRINGS, ids=[f"{verb} {make('s')}" for verb, make in STRINGS])
async def test_what_a_database_cannot_store_is_refused_in_every_string(
    verb: str, make: Callable[[str], dict[str, Any]], text: str
) -> None:
    await refuse(verb, make(text))


@pytest.mark.parametrize("text", ["🙂", "\x01", "\uffff", "e\u0301", "\u202e", "\U0010ffff"])
async def test_every_other_character_is_taken_and_stored_exactly_as_given(text: str) -> None:
    provider = await ask("add", {"content": f" {text} "})
    assert provider.inputs[0].content == f" {text} "


@pytest.mark.parametrize("later", [timedelta(0), timedelta(microseconds=-1), timedelta(days=-1)])
async def test_validity_that_ends_before_it_starts_is_refused(later: timedelta) -> None:
    message = await refuse("add", {"valid_from": NOON, "valid_to": NOON + later})
    assert message == "valid_to must be later than valid_from"


async def test_validity_of_one_microsecond_is_taken() -> None:
    await ask("add", {"valid_from": NOON, "valid_to": NOON + timedelta(microseconds=1)})


async def test_moments_are_compared_not_their_clocks() -> None:
    east = NOON.replace(tzinfo=timezone(timedelta(hours=1)))  # an hour before noon in UTC
    await refuse("add", {"valid_from": NOON, "valid_to": east})


async def test_moments_reach_the_provider_in_utc() -> None:
    provider = await ask("list", {"since": NOON.astimezone(timezone(timedelta(hours=5)))})
    assert (provider.requests[0].since, provider.requests[0].since.utcoffset()) == (NOON, timedelta(0))


UNKNOWN: list[tuple[str, Bad]] = [
    ("add", {"colour": "red"}),
    ("add", {"X_mem0": 1}),
    ("add", {"xmem0": 1}),
    ("add", {"tag": "one"}),
    ("update", {"tag": "one"}),
    ("update", {"valid_from": NOON}),
    ("update", {"xmem0": 1}),
    ("get", {"user": "ada"}),
    ("list", {"page": 1}),
    ("search", {"top_k": 1}),
    ("context", {"limit": 1}),
    ("audit", {"until": NOON}),
]


@pytest.mark.parametrize(("verb", "fields"), UNKNOWN)
async def test_an_unknown_keyword_is_a_type_error_that_names_it(verb: str, fields: Bad) -> None:
    with pytest.raises(TypeError, match=f"{verb}\\(\\).* unexpected keyword argument '{next(iter(fields))}'"):
        await ask(verb, fields)


@pytest.mark.parametrize(
    ("keyword", "key"), [("x_mem0", "x-mem0"), ("x_my_store", "x-my-store"), ("x-mem0", "x-mem0"), ("x_9", "x-9")]
)
async def test_an_extension_keyword_is_the_spelling_of_its_wire_key(keyword: str, key: str) -> None:
    value = {"a": [1, 2.5, None, True, "s"], "b": {}}
    provider = await ask("add", {keyword: value})
    assert provider.inputs[0].extensions == {key: value}


@pytest.mark.parametrize("key", ["x_", "x-", "x-é", "x-a b", "x-a\n", "x-a/b", "x_" + "a" * 128, "x--a"])
async def test_an_extension_key_that_is_none_is_refused(key: str) -> None:
    await refuse("add", {key: 1})


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"bytes",
        NOON,
        {1: "integer key"},
        {b"bytes": "bytes key"},
        {None: 1},
        float("nan"),
        [float("-inf")],
        deep(101),
        deep(5_000),
        10**5000,
    ],
    ids=[
        *("object", "set", "bytes", "datetime", "integer key", "bytes key", "null key", "nan", "infinity"),
        *("too deep", "much too deep", "huge integer"),
    ],
)
async def test_an_extension_that_is_not_json_is_refused(value: Any) -> None:
    await refuse("add", {"x_mem0": value})


STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | STORABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STORABLE, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_any_json_value_is_kept_unchanged(value: Any) -> None:
    item = MemoryInput.model_validate({"content": "tea", "user_id": "ada", "x-y": value})
    assert item.extensions == ({"x-y": value} if value is not None else {})
    assert json.loads(json.dumps(item.extensions)) == item.extensions


LEAKS: list[tuple[str, Bad]] = [
    ("add", {"content": f"{SECRET}\0"}),
    ("add", {"content": [SECRET]}),
    ("add", {"content": SECRET * 5000}),
    ("add", {"user_id": SECRET * 50}),
    ("add", {"scope": f"{SECRET}//x"}),
    ("add", {"scope": f"*{SECRET}"}),
    ("add", {"tags": [SECRET * 10]}),
    ("add", {"tags": SECRET}),
    ("add", {"source": SECRET}),
    ("add", {"source": {"type": SECRET}}),
    ("add", {"supersedes": [SECRET + "\0"]}),
    ("add", {"confidence": SECRET}),
    ("add", {"valid_from": SECRET}),
    ("add", {"x_mem0": f"{SECRET}\0"}),
    ("add", {"x_mem0": {"k": f"{SECRET}\ud800"}}),
    ("add", {"x_mem0": {SECRET: object()}}),
    ("add", {"x_mem0": {SECRET}}),
    ("add", {"idempotency_key": SECRET * 50}),
    ("update", {"content": f"{SECRET}\0"}),
    ("update", {"valid_to": SECRET}),
    ("search", {"query": f"{SECRET}\0"}),
    ("list", {"cursor": SECRET * 50}),
    ("get", {"id": f"{SECRET}\0"}),
]


@pytest.mark.parametrize(("verb", "fields"), LEAKS, ids=lambda v: v if isinstance(v, str) else ",".join(v))
async def test_no_message_repeats_what_was_given(verb: str, fields: Bad) -> None:
    assert SECRET not in await refuse(verb, fields)


async def test_every_fault_is_named_at_once() -> None:
    message = await refuse("add", {"content": "", "confidence": 2, "tags": [""]})
    assert all(f"{name}: " in message for name in ("content", "confidence", "tags.0"))


async def test_none_is_the_same_as_not_passed_to_add() -> None:
    provider = await ask("add", {"scope": None, "tags": None, "source": None, "confidence": None, "supersedes": None})
    assert provider.inputs[0] == MemoryInput(content="tea", user_id="ada")


async def test_superseded_ids_lose_their_duplicates_and_keep_their_order() -> None:
    provider = await ask("add", {"supersedes": ["b", "a", "b"]})
    assert provider.inputs[0].supersedes == ["b", "a"]


async def test_a_change_that_is_not_named_is_not_made() -> None:
    provider = await ask("update", {"scope": None, "confidence": 0.5})
    assert provider.requests[0].changes == {"scope": None, "confidence": 0.5}


async def test_a_listing_with_a_page_size_out_of_range_is_refused() -> None:
    provider = FakeProvider()
    with pytest.raises(InvalidRequestError):
        await anext(AsyncMemory(provider).iter("ada", page_size=501))
    assert provider.opens == 0


def test_two_inputs_share_a_fingerprint_only_when_they_are_the_same() -> None:
    one = MemoryInput.model_validate({"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 2}, "tags": ["t"]})
    same = MemoryInput.model_validate({"tags": ["t"], "x-b": {"q": 2, "p": 1}, "user_id": "ada", "content": "tea"})
    others = [
        {"content": "tea ", "user_id": "ada", "x-b": {"p": 1, "q": 2}, "tags": ["t"]},
        {"content": "tea", "user_id": "bob", "x-b": {"p": 1, "q": 2}, "tags": ["t"]},
        {"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 3}, "tags": ["t"]},
        {"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 2}},
        {"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 2}, "tags": ["t"], "scope": "s"},
        {"content": "tea", "user_id": "ada", "x-b": {"p": 1, "q": 2}, "tags": ["t"], "valid_from": NOON},
    ]
    assert fingerprint(one) == fingerprint(same)
    for fields in others:
        other = MemoryInput.model_validate(fields)
        assert fingerprint(other) != fingerprint(one)


@pytest.mark.promise(110)
@pytest.mark.parametrize(
    ("option", "value"),
    [("timeout", 0), ("timeout", -1), ("retries", -1), ("close_timeout", 0), ("max_concurrency", 0)],
)
def test_an_option_that_could_never_work_is_refused_when_the_client_is_made(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        AsyncMemory(FakeProvider(), **{option: value})
