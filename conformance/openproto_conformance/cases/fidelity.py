"""Nothing is silently lost: every field comes back exactly as it was given."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from openproto import MemoryRecord
from openproto_conformance.bench import Bench
from openproto_conformance.case import Area
from openproto_conformance.checks import ensure, equal

area = Area("fidelity")

TEXTS = {
    "accents composed": "caf\u00e9 na\u00efve",
    "accents decomposed": "cafe\u0301 nai\u0308ve",
    "emoji joined": "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "beyond the basic plane": "𝕳𝖊𝖑𝖑𝖔 𒀀 𠀋",
    "right to left": "שלום עולם مرحبا بالعالم",
    "direction marks": "a\u202eb\u202c \u200fc\u200e",
    "no spaces": "我喜欢喝绿茶。緑茶が好きです ฉันชอบชา",
    "hangul in two forms": "한국어 \u1112\u1161\u11ab",
    "combining only": "\u0301\u0302x\u0303",
    "zero width": "a\u200bb\u200cc\u200dd\u2060e\ufefff",
    "line ends": "one\ntwo\r\nthree\rfour\u2028five\u2029six\x85seven",
    "white space kept": "  two before, a tab after\t\n",
    "control characters": "\x01\x02\x1b[31m\x7f",
    "noncharacters": "\ufffd\uffff\ufdd0",
    "quotes": """'single' "double" `back` \\ \\\\ \\n \\u0041 ''; "" """,
    "SQL": "Robert'); DROP TABLE memories;-- $1 ? :name %s %(x)s {0}",
    "JSON and HTML": '{"a": [1, null]} </script> &amp; <b>',
    "wildcards": "100% _under_ [a-z] * ? ^ ~",
    "Turkish and German": "Iİıi ẞß ﬁ ſ",
}

FLOATS = (0.0, 1.0, 0.1, 1 / 3, 0.30000000000000004, 0.9999999999999999, 2.2250738585072014e-308, 5e-324)

MOMENTS = (
    datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 6, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 10, 27, 2, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2))),
    datetime(2024, 3, 1, 0, 15, tzinfo=timezone(timedelta(hours=-11, minutes=-30))),
)

EXTENSIONS: dict[str, Any] = {
    "x-nested": {"list": [1, "two", None, True, {"deep": [[], {}]}], "ключ": "значение", "": "empty key"},
    "x-numbers": [0, -1, 2**53 + 1, -(2**63), 1.5, 1e-7, 0.1],
    "x-text": "'; -- \\u0041 👩‍👩‍👧‍👦",
    "x-false": False,
    "x-empty": {},
    "x-dotted.name_with-all": [],
}


@area.case("add", "get", "list", hint="the mapping between fields and columns, in the order of MemoryInput")
async def every_field_comes_back(bench: Bench) -> None:
    """Every field of a memory comes back from `add`, `get`, `list`, and `search` as it was given."""
    fields = bench.supported(
        content="Ann prefers green tea",
        scope="kitchen/drinks",
        tags=["tea", "Tea", "öl"],
        source={"app": "notebook", "type": "imported", "ref": "page 7"},
        confidence=0.123456789012345,
        valid_from=MOMENTS[0],
        valid_to=MOMENTS[4],
        **EXTENSIONS,
    )
    added = await bench.add(user_id=bench.user(), **fields)
    seen = {"add": added, "get": await bench.client.get(added.id)}
    seen["list"] = (await bench.client.list(bench.user())).items[0]
    if "search" in bench.capabilities.verbs:
        seen["search"] = (await bench.client.search("green tea", bench.user()))[0].memory
    for verb, record in seen.items():
        for name, value in fields.items():
            got = _field(record, name)
            equal(got, value, f"{name} in what {verb} returned")
        equal(record, added, f"what {verb} returned, beside what add returned")


@area.case(
    "add", "get", hint="text in content, tags, scope, source, and extensions: nothing normalised, trimmed, escaped"
)
async def text_of_every_kind_is_kept(bench: Bench) -> None:
    """Text of every script, form, and white space is stored exactly as given, in every field that holds text."""
    for kind, text in TEXTS.items():
        fields: dict[str, Any] = {
            "content": text,
            "tags": [text],
            "source": {"app": text, "ref": text},
            "x-text": {text: text},
        }
        record = await bench.client.add(user_id=bench.user(), **fields)
        got = await bench.client.get(record.id)
        for name, value in fields.items():
            equal(_field(got, name), value, f"{name} with {kind}")


@area.case("add", "list", hint="user ids and scopes: compared and stored as they are, in queries too")
async def odd_users_and_scopes_are_kept(bench: Bench) -> None:
    """A user id or scope of any text finds exactly its own records."""
    for kind, text in TEXTS.items():
        user = f"{bench.user()} {text}"
        scope = bench.supported(scope=f"root/{text.replace('*', '+').replace('/', '|')}")
        record = await bench.client.add("note", user_id=user, **scope)
        equal((record.user_id, record.scope), (user, scope.get("scope")), f"user and scope with {kind}")
        equal([r.id for r in await bench.inventory(user, **scope)], [record.id], f"list of {kind}")


@area.case("add", "get", "update", hint="confidence: a double, so no REAL of 32 bits, no rounding, no text")
async def a_confidence_keeps_every_bit(bench: Bench) -> None:
    """A confidence is a double and comes back with every bit."""
    for value in FLOATS:
        record = await bench.client.add("sure", user_id=bench.user(), confidence=value)
        equal(record.confidence, value, "confidence from add")
        equal((await bench.client.get(record.id)).confidence, value, "confidence from get")
        equal((await bench.client.update(record.id, confidence=value)).confidence, value, "confidence from update")


@area.case(
    "add", "get", "update", hint="datetimes: microseconds since an epoch, or a timestamptz; never seconds, never naive"
)
async def moments_keep_their_microseconds(bench: Bench) -> None:
    """A moment of any zone comes back as the same moment, to the microsecond, in UTC."""
    for moment in MOMENTS:
        for name in ("valid_from", "valid_to"):
            record = await bench.client.add("when", user_id=bench.user(), **{name: moment})  # type: ignore[arg-type]
            for verb, got in (("add", record), ("get", await bench.client.get(record.id))):
                _check_moment(getattr(got, name), moment, f"{name} from {verb}")
        updated = await bench.client.update((await bench.client.add("when", user_id=bench.user())).id, valid_to=moment)
        _check_moment(updated.valid_to, moment, "valid_to from update")


@area.case(
    "add", "get", "list", "update", hint="every datetime that leaves the provider: aware, with an offset of zero"
)
async def moments_are_in_utc(bench: Bench) -> None:
    """Every moment in a record is aware and in UTC, and created_at reads the same from every verb."""
    record = await bench.client.add("when", user_id=bench.user(), valid_from=MOMENTS[5], valid_to=MOMENTS[4])
    updated = await bench.client.update(record.id, content="when exactly")
    for got in (record, updated, await bench.client.get(record.id), (await bench.client.list(bench.user())).items[0]):
        for name in ("created_at", "updated_at", "valid_from", "valid_to"):
            moment = getattr(got, name)
            ensure(moment is None or moment.utcoffset() == timedelta(0), f"{name} is not in UTC: {moment!r}")
        equal(got.created_at, record.created_at, "created_at")
    ensure(updated.updated_at is None or updated.updated_at >= record.created_at, "updated before it was created")


@area.case("add", "get", hint="extensions: kept as JSON, returned unchanged, under the names they came with")
async def extensions_come_back_unchanged(bench: Bench) -> None:
    """`x-*` extensions hold any JSON and come back unchanged; `x_name=` is the spelling of `x-name`."""
    record = await bench.client.add("extended", user_id=bench.user(), **EXTENSIONS)
    equal(record.extensions, EXTENSIONS, "the extensions from add")
    equal((await bench.client.get(record.id)).extensions, EXTENSIONS, "the extensions from get")
    spelt = await bench.client.add("spelt", user_id=bench.user(), x_mem0={"a": 1})
    equal((await bench.client.get(spelt.id)).extensions, {"x-mem0": {"a": 1}}, "x_mem0=")


@area.case("add", "get", hint="optional fields that were not given: None or empty in Python, left out of to_wire()")
async def absent_stays_absent(bench: Bench) -> None:
    """A field that was not given is absent: not an empty string, not zero, and left out on the wire."""
    added = await bench.client.add("bare", user_id=bench.user())
    for verb, record in (("add", added), ("get", await bench.client.get(added.id))):
        for name in ("scope", "source", "confidence", "valid_from", "valid_to", "superseded_by"):
            equal(getattr(record, name), None, f"{name} from {verb}")
        equal((record.tags, record.supersedes, record.extensions), ([], [], {}), f"lists and extensions from {verb}")
        assigned = {"id", "content", "user_id", "created_at", "status", "version", "embedding_model"}
        unasked = record.to_wire().keys() - assigned
        equal(unasked, set(), f"fields on the wire from {verb} that nobody gave")


@area.case("add", "get", hint="a source with some of its fields: the others stay absent")
async def a_partial_source_stays_partial(bench: Bench) -> None:
    """A source keeps exactly the fields that it was given."""
    for source in ({"app": "notebook"}, {"type": "explicit"}, {"ref": "7"}, {"app": "a", "type": "extracted"}):
        record = await bench.client.get((await bench.client.add("note", user_id=bench.user(), source=source)).id)
        equal(record.source and record.source.to_wire(), source, "the source")


@area.case("add", "get", "list", hint="column widths, index limits, and max_content_length against PROTOCOL's limits")
async def the_longest_values_fit(bench: Bench) -> None:
    """The longest values that the protocol allows are stored and found by."""
    longest = min(100_000, bench.capabilities.features.max_content_length or 100_000)
    user = (bench.user() + "👤" * 256)[:256]
    tags = [f"{n:02}" + "🏷" * 126 for n in range(64)]
    scope = bench.supported(scope="/".join(["s" * 63] * 8))
    record = await bench.client.add("🍵" * longest, user_id=user, tags=tags, **scope)
    got = await bench.client.get(record.id, user_id=user)
    equal((len(got.content), set(got.content)), (longest, {"🍵"}), "the longest content")
    equal((got.tags, got.scope), (tags, scope.get("scope")), "64 tags of 128 characters, and a scope of 511")
    equal([r.id for r in await bench.inventory(user, tag=tags[63], **scope)], [record.id], "found by the longest")


@area.case("add", "get", "update", hint="`update`: it must not rewrite the row from a subset of its fields")
async def an_update_loses_nothing(bench: Bench) -> None:
    """An update of one field keeps every other one, source and extensions included."""
    record = await bench.add(
        "first words",
        user_id=bench.user(),
        tags=["a"],
        source={"app": "notebook", "type": "imported", "ref": "7"},
        confidence=0.1,
        valid_from=MOMENTS[0],
        valid_to=MOMENTS[4],
        **bench.supported(scope="kitchen"),
        **EXTENSIONS,
    )
    await bench.client.update(record.id, content="second words")
    free = {"content", "updated_at", "version", "status", "embedding_model"}
    after = await bench.client.get(record.id)
    equal(after.content, "second words", "content")
    equal(after.model_dump(exclude=free), record.model_dump(exclude=free), "everything else")


def _field(record: MemoryRecord, name: str) -> object:
    if name.startswith("x-"):
        return record.extensions.get(name)
    value = getattr(record, name)
    return value.to_wire() if name == "source" and value is not None else value


def _check_moment(got: datetime | None, wanted: datetime, what: str) -> None:
    ensure(got is not None and got.tzinfo is not None, f"{what} must be an aware datetime, and is {got!r}")
    equal(got, wanted, what)
