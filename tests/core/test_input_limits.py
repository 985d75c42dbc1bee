"""What a caller may give: every limit of the protocol at its boundary, and values that look like others."""

from __future__ import annotations

import enum
import itertools
import pickle
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_provider import NOON, FakeProvider
from hypothesis import given
from hypothesis import strategies as st
from openproto_conformance.cases.errors import INVALID
from pydantic import ValidationError

from openproto import AsyncMemory, InvalidRequestError, MemoryInput, MemoryRecord, MemorySource, OpenProtoError
from openproto.client.inputs import keyed, record_ref
from openproto.fields import moment
from openproto.requests import Filters, RecordRef, build
from openproto.stores import restoring


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


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("add", {"scope": "s" * 512, "idempotency_key": "k" * 256, "x_mem0": deep(100)}),
        ("add", {"content": " \n blanks \t", "valid_from": NOON, "valid_to": NOON + timedelta(microseconds=1)}),
        ("add", {"valid_from": datetime.min.replace(tzinfo=UTC), "valid_to": datetime.max.replace(tzinfo=UTC)}),
        ("search", {"query": "q" * 100_000, "tag": "t" * 128}),
        ("context", {"token_budget": 1_000_000}),
        ("get", {"id": "i" * 512}),
    ],
)
async def test_the_largest_values_that_the_suite_does_not_try_are_accepted(verb: str, fields: dict[str, Any]) -> None:
    provider = await ask(verb, fields)
    assert provider.calls[0] == ("search" if verb == "context" else verb)


@pytest.mark.parametrize("end", ["", "é", "a b", "a\n", "a/b", "a" * 128, "-a", "a\0b", "a\udfffb"])
async def test_an_extension_with_a_malformed_key_is_refused(end: str) -> None:
    with pytest.raises(InvalidRequestError):
        await ask("add", {f"x-{end}": 1})


async def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(InvalidRequestError, match=r"(?s)content: .*tags\.0: .*confidence: "):
        await ask("add", {"content": "", "confidence": 2, "tags": [""]})


async def test_a_listing_with_a_page_size_out_of_range_is_refused() -> None:
    provider = FakeProvider()
    with pytest.raises(InvalidRequestError):
        await anext(AsyncMemory(provider).iter("ada", page_size=501))
    assert provider.opens == 0


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


AT_NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Text(str):
    def __str__(self) -> str:
        raise AssertionError("the subclass's own method was called")

    __eq__ = str.__eq__
    __hash__ = str.__hash__


class Count(int):
    pass


class Clock(datetime):
    def astimezone(self, tz: tzinfo | None = None) -> Clock:
        raise AttributeError("value")


class Broken(datetime):
    @property
    def year(self) -> int:
        raise AttributeError("year")


class Colour(enum.Enum):
    RED = "red"


EAST = timezone(timedelta(hours=5, minutes=30))
TEXTS = [str, Text, np.str_]


@pytest.mark.parametrize("turn", range(4))
async def test_look_alikes_reach_the_provider_as_plain_types(turn: int) -> None:
    text: Any = TEXTS[turn % 3]
    moments: list[Any] = [AT_NOON, Clock(2026, 1, 31, 12, tzinfo=UTC), AT_NOON.isoformat(), AT_NOON.astimezone(EAST)]
    fields: dict[str, Any] = {
        "user_id": text("ada"),
        "scope": text("a/b"),
        "tags": [["x"], ("x",), [Text("x")]][turn % 3],
        "valid_from": moments[turn],
        "confidence": [0.5, np.float64(0.5), np.float32(0.5)][turn % 3],
        "x_app": [{"n": 1, "c": "red"}, {Text("n"): Count(1), "c": Colour.RED}][turn % 2],
    }
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.add(text("tea"), **fields)
        await memory.list("ada", since=moments[turn], limit=[int, Count, np.int64][turn % 3](5))  # type: ignore[arg-type]
    item, query = provider.requests
    wanted = {"user_id": "ada", "scope": "a/b", "tags": ["x"], "valid_from": AT_NOON, "confidence": 0.5}
    assert item.model_dump(exclude_defaults=True) == {"content": "tea", **wanted, "x-app": {"n": 1, "c": "red"}}
    for value in (item.content, item.user_id, item.scope, *item.tags, *item.extensions["x-app"]):
        assert type(value) is str
    assert (type(item.valid_from), type(query.since), type(query.limit)) == (datetime, datetime, int)
    assert (query.since, query.limit) == (AT_NOON, 5)


def test_every_spelling_of_a_moment_means_the_same_everywhere() -> None:
    for rest in (
        *("T12:00:00Z", "t12:00:00z", " 12:00:00 +00:00", "T12:00Z", "T17:30:00+0530", "T14:00:00+02"),
        *("T12:00:00-00:00", "T11:59:60Z", "T12:00:00.000000Z"),
    ):
        assert moment(f"2026-01-31{rest}") == AT_NOON
    assert moment("2026-01-31T12:00:00.25Z") == AT_NOON.replace(microsecond=250000)
    assert moment("2026-01-31T12:00:00,123456789Z") == AT_NOON.replace(microsecond=123456)


@pytest.mark.parametrize(
    "text",
    [
        *("2026-01-31T17+05:30", "2026-01-31T12:00:00", "2026-01-31", "2026-W05-6T12:00:00Z", "20260131T120000Z"),
        *("2026-02-30T12:00:00Z", "2026-01-31T24:00:00Z", "2026-01-31T12:00:00+25:00", "9999-12-31T23:59:60Z"),
        *("2026-01-31T12:00:00Z or later", "٢٠٢٦-01-31T12:00:00Z", "", 1738324800),
    ],
)
def test_what_is_not_exactly_one_moment_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match=r"moment|does not exist"):
        moment(text)


async def test_an_item_that_is_not_a_memory_is_that_items_error_and_one_text_is_no_list() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        for wrong in ("ada", b"ada", {"ada": 1}, 5, None, [1]):
            whole: Any = wrong
            with pytest.raises(InvalidRequestError, match=r"^user_ids"):
                await memory.search_many(whole, "tea")
            with pytest.raises(InvalidRequestError, match=r"^ids"):
                await memory.wait_for_ingest(whole, "ada")
            if whole != [1]:
                with pytest.raises(InvalidRequestError, match=r"^items: "):
                    await memory.add_many(whole)
        assert provider.calls == []
        good = {"content": "tea", "user_id": "ada"}
        items: list[Any] = [good, "", [1], None, {1: 2}, {"user_id": "ada"}, {**good, "tags": "x"}]
        stored, *refused = await memory.add_many(items)
    assert isinstance(stored, MemoryRecord)
    texts = [str(outcome) for outcome in refused if isinstance(outcome, InvalidRequestError)]
    kinds = ["str", "list", "NoneType", "mapping with keys that are not strings"]
    assert [text.partition(" and is a ")[2] for text in texts[:4]] == kinds
    assert (texts[4], "brackets" in texts[5]) == ("content: is missing", True)


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "I like tea"}, {"type": "image_url", "image_url": {}}]},
    {"role": "assistant", "content": None, "tool_calls": []},
    {"role": "assistant", "content": "Noted."},
]


async def test_messages_become_one_line_each_also_in_batches() -> None:
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        await memory.add(CHAT, user_id="ada")
        await memory.add_many([{"content": CHAT, "user_id": "ada"}])
    assert [item.content for item in provider.inputs] == ["system: Be brief.\nuser: I like tea\nassistant: Noted."] * 2


async def test_message_objects_of_the_sdks_are_messages() -> None:
    from anthropic.types import Message, TextBlock, Usage
    from openai.types.chat import ChatCompletionMessage

    usage = Usage(input_tokens=1, output_tokens=1)
    blocks: list[Any] = [TextBlock(text="Noted.", type="text")]
    claude = Message(id="m", content=blocks, model="c", role="assistant", type="message", usage=usage)
    provider = FakeProvider()
    async with AsyncMemory(provider) as memory:
        said: list[Any] = [{"role": "user", "content": "hi"}, ChatCompletionMessage(role="assistant", content="Hello.")]
        await memory.add(said, user_id="ada")
        await memory.add(claude, user_id="ada")  # type: ignore[arg-type]
    assert [item.content for item in provider.inputs] == ["user: hi\nassistant: Hello.", "assistant: Noted."]


@pytest.mark.parametrize(
    "content",
    [
        *([], [{"role": "user", "content": ""}], [{"role": "user"}], [{"content": "no role"}], ["just text"]),
        *([{"role": "user", "content": 3}], [{"role": 1, "content": "x"}], 3, None, [SimpleNamespace(content="x")]),
    ],
)
async def test_what_is_not_a_list_of_messages_is_refused(content: Any) -> None:
    with pytest.raises(InvalidRequestError):
        await AsyncMemory(FakeProvider()).add(content, user_id="ada")


async def test_metadata_is_pointed_to_extensions_and_what_cannot_be_read_is_named() -> None:
    memory = AsyncMemory(FakeProvider())
    with pytest.raises(TypeError, match=r"x_app=\{"):
        await memory.add("tea", user_id="ada", metadata={"a": 1})
    with pytest.raises(InvalidRequestError, match="since"):
        await memory.list("ada", since=Broken(2026, 1, 1, tzinfo=UTC))


USERS = ["ada", Text("ada"), "é", "u" * 256, "u" * 257, "", "\t", "\0", "\ud800", 7, None]
CONTENTS = ["tea", " t\n", "é", Text("tea"), "x" * 100_000, "x" * 100_001, "", " \n", "a\0b", "\ud800"]
IDS = ["m1", "é", Text("m1"), "i" * 512, "i" * 513, "", " ", "\0", "\ud800", 7, None]
ALONE = {"content": CONTENTS, "user_id": USERS, "on_duplicate": ["keep", "skip", "never"]}


@pytest.mark.parametrize(
    ("make", "model", "choices"),
    [(lambda **fields: keyed(fields).item, MemoryInput, ALONE), (record_ref, RecordRef, {"id": IDS, "user_id": USERS})],
)
def test_what_is_asked_most_is_checked_and_made_as_by_validation(make: Any, model: Any, choices: Any) -> None:
    for values in itertools.product(*choices.values()):
        fields = dict(zip(choices, values, strict=True))
        try:
            validated = model.model_validate(fields)
        except ValidationError:
            with pytest.raises(InvalidRequestError):
                make(**fields)
            continue
        made = make(**fields)
        for same in (made, pickle.loads(pickle.dumps(made)), made.model_copy()):
            assert (same, list(same), same.model_extra) == (validated, list(validated), validated.model_extra)
            assert {type(value) for _, value in same} <= {str, list, type(None)}
            assert same.model_fields_set == validated.model_fields_set
            assert same.model_dump_json() == validated.model_dump_json()


ID = "01890a5d-ac96-8774-bcce-b302099a8057"
LATER = NOON + timedelta(days=1)
SOURCES: list[Any] = [{"app": "a", "type": "explicit"}, {"type": "odd"}, {"more": 1}, {}]
NO_JSON: list[Any] = [deep(101), float("inf"), 2**4096, "\0", {1: 2}]
RESTORED: dict[str, list[Any]] = {
    "content": ["tea", " t\n", "é", Text("tea"), "x" * 100_001, "", " \n", "a\0b", "\ud800"],
    "user_id": ["é", "u" * 256, "u" * 257, "", 7],
    "scope": [None, "a/b c", "s" * 512, "s" * 513, "a//b", "a/*", "", Text("a"), "\ud800"],
    "tags": [MANY, [*MANY, "t"], ["t" * 128], ["t" * 129], [" "], [Text("t")], ["t", "t"], [7]],
    "source": [MemorySource.model_validate(each) for each in SOURCES],
    "confidence": [0.0, 1.0, 1.5, float("nan"), True, "0.5"],
    "valid_from": [NOON, NOON.replace(tzinfo=None), NOON.astimezone(timezone(timedelta(hours=2))), Clock.now(UTC)],
    "valid_to": [LATER, NOON, NOON - timedelta(1)],
    "supersedes": [[ID], [ID, ID], ["m1"], [""]],
    "key": ["k" * 512, "k" * 513, "", Text("k")],
    "id": ["m1", "i" * 513, ""],
    "x-app": [{"a": [1, 2.5, None, "é", True, {}]}, deep(100), None, Text("é"), *NO_JSON],
}


@pytest.mark.parametrize("name", RESTORED)
def test_what_is_restored_is_checked_and_made_as_by_validation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in RESTORED[name]:
        record = MemoryRecord.model_validate({"id": ID, "content": "tea", "user_id": "ada", "created_at": NOON})
        (record.model_extra or {} if name == "x-app" else vars(record))[name] = value
        if name == "valid_to":
            vars(record)["valid_from"] = NOON
        made = restoring.input_of(record)
        with monkeypatch.context() as patched:
            patched.setattr(restoring, "_valid_input", lambda record: None)
            validated = restoring.input_of(record)
        if isinstance(made, InvalidRequestError):
            assert (type(made), made.message) == (type(validated), getattr(validated, "message", ""))
            continue
        assert not isinstance(made, OpenProtoError)
        assert not isinstance(validated, OpenProtoError)
        assert (list(made.item), made.idempotency_key) == (list(validated.item), validated.idempotency_key)
        assert [*map(type, vars(made.item).values())] == [*map(type, vars(validated.item).values())]
        assert made.item.model_fields_set == validated.item.model_fields_set
        assert made.item.model_dump_json() == validated.item.model_dump_json()
