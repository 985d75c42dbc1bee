"""Values that have been somebody's bug: texts of every kind, lookalikes, JSON, and moments far from now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from random import Random
from typing import Any

TICK = timedelta(microseconds=1)
_ZONE = timezone(timedelta(hours=5, minutes=30))

MOMENTS = (
    datetime(1066, 10, 14, 9, tzinfo=UTC),
    datetime(1899, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2001, 9, 9, 1, 46, 40, 1, tzinfo=UTC),
    datetime(2024, 2, 29, 12, 30, 0, 123_456, tzinfo=_ZONE),
    datetime(2025, 3, 30, 2, 30, tzinfo=_ZONE),
    datetime(2100, 2, 28, 23, 59, 59, 1, tzinfo=UTC),
    datetime(2999, 12, 31, tzinfo=UTC),
)
"""No two of them, and no now, within a day of each other: what is current at one of them is never a matter of luck."""

WORDS = ("harbour", "violin", "walnut", "glacier", "lantern", "pepper", "saddle", "meadow", "copper", "orchid")

SAME = ("Ada drinks tea", "ada drinks  TEA.", "Ada drinks\nｔｅａ！", "Ada drinks tea?", "Ada drinks teas")
"""Texts of which some say the same as others."""

TEXTS = (
    "e\u0301 is not \u00e9",
    "\u1112\u1161\u11ab of three letters",
    "\u00e9 is not e\u0301",
    "STRASSE, straße, Strasse",
    "İstanbul, ISTANBUL, istanbul",
    "東京で緑茶を飲む",
    "שלום \u200fעולם\u200f",
    "👩‍👩‍👧‍👦 and 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "\ufeffa mark at the start",
    "zero\u200bwidth\u2060joined",
    "line\u2028separator\u2029s",
    "control \x01\x02\x1b[31m characters",
    '{"a": 1, "b": null, "c": [true, 1.0]}',
    "null",
    "true",
    "007",
    "1e5",
    "0.10",
    '"quoted"',
    "'; DROP TABLE memories; --",
    "100 % of _ and \\ and \\u0041",
    "<b>bold</b> &amp; &#65;",
    "[no-such-id]",
    "x-note: {}",
)
CLEANED = (
    " blanks at both ends of a cafe\u0301  ",
    "\ttabs\tand line ends\r\n",
    " a blank before",
    "a line end after an a\u0308\n",
    "cafe\u0301, a\u0308, n\u0303",
    '  {"z":1,"a":2}',
    "[1,2, 3]",
    '{"b":1.0,"a":1e3}',
)
"""Texts that are another text once somebody has tidied them."""
TAGS = (
    "a",
    "A",
    "b",
    "007",
    "7",
    "7.0",
    " padded ",
    "a,b",
    '["a"]',
    "a b",
    "true",
    "null",
    "é",
    "e\u0301",
    "日本",
    "👍🏽",
    "it's",
    '"',
    "%",
    "_",
    "t" * 128,
)
SCOPES = (
    "work",
    "work/plans",
    "workx",
    "Work",
    "work/plans/2024",
    "work plans",
    "work_plans",
    "w%rk",
    "wörk/pläne",
    "agent/a1/run/r1",
    "agent/a1",
    "[work]",
    "work/ plans ",
    "a/" * 255 + "ab",
)
FILTER_ENDINGS = ("", "/", "/*")
LOOK_ALIKES = ("ann", "Ann", "ann ", " ann", "anne", "a\u0301nn", "ánn", f"{'n' * 200}a", f"{'n' * 200}b")
KEYS = ("profile", "Profile", "profile ", "007", "7", f"{'k' * 64}a", f"{'k' * 64}b", f"{'k' * 500}a", "ключ/..", "%")
IDEMPOTENCY_KEYS = ("first", "First", "first ", f"{'i' * 64}a", f"{'i' * 64}b", f"{'i' * 200}a", "ключ", "007")
JSON_VALUES: tuple[Any, ...] = (
    True,
    False,
    0,
    1,
    1.0,
    0.1,
    -7,
    2**53 + 1,
    -(2**63),
    2**64 + 1,
    1e300,
    5e-324,
    "",
    " padded ",
    "007",
    "null",
    "l" * 300,
    [],
    {},
    [None],
    {"a": None},
    [1, 1.0, True, "1", None],
    {"deep": {"er": [{"and": {"deeper": [[[]]]}}]}},
    {"b": 1, "a": {"n": None, "t": True, "i": 1, "f": 1.0}, "": "empty key"},
    {"ключ": "значение", 'quote"d': "é", "a.b": 1, "$set": {"x": 1}},
)
OBJECTS: tuple[Any, ...] = tuple(value for value in JSON_VALUES if isinstance(value, dict))
CONFIDENCES: tuple[Any, ...] = (0, 1, 0.0, 1.0, 0.5, 0.1, 0.30000000000000004, 5e-324, 0.9999999999999999)
SOURCES: tuple[dict[str, str], ...] = (
    {"app": "notebook"},
    {"type": "extracted"},
    {"app": " notebook ", "type": "explicit", "ref": "page 7"},
    {"type": "imported", "ref": "r" * 256},
    {"app": "a" * 256, "ref": "007"},
    {"ref": '{"page": 7}'},
)
FEW = 4
LONG = (500, 501, 2_000, 8_001, 65_537)


def content(random: Random, longest: int, *, long: bool = False) -> str:
    """Return a text with a word that a search can ask for, in which something is often unusual."""
    plain = f"the {random.choice(WORDS)} of {random.choice(WORDS)} number {random.randrange(1000)}"
    if long and random.random() < 0.25:
        most = longest if random.random() < 0.2 else min(longest, random.choice(LONG))
        return f"{plain} {'é' if random.random() < 0.5 else 'x'}" + "y" * (most - len(plain) - 2)
    if random.random() < 0.5:
        return plain
    text = random.choice(TEXTS if random.random() < 0.5 else CLEANED)
    return text if random.random() < 0.5 else f"{text} {plain} {random.choice(TEXTS)}"


def tags(random: Random) -> list[str]:
    """Return a few tags, repeated ones among them; now and then as many as there may be."""
    if random.random() < 0.08:
        return [f"tag {n}" for n in range(64)]
    return random.choices(TAGS if random.random() < 0.4 else TAGS[:FEW], k=random.randrange(1, 5))


def scope(random: Random) -> str:
    """Return a scope, mostly one of a few, so that filters meet what they are about."""
    return random.choice(SCOPES if random.random() < 0.4 else SCOPES[:FEW])


def key(random: Random) -> str:
    """Return a key of a record, mostly one of a few, so that what bears it is written over."""
    return random.choice(KEYS if random.random() < 0.3 else KEYS[:FEW])


def extensions(random: Random) -> dict[str, Any]:
    """Return extensions of JSON of every kind, the first of them an object; now and then more than a dozen."""
    names = range(14) if random.random() < 0.15 else random.sample((0, 1, 10, 11), random.randrange(1, 4))
    return {f"x-note{n}": random.choice(JSON_VALUES if n else OBJECTS) for n in names}


def another(value: Any) -> Any:
    """Return nearly the value: one entry more in an object, another last one in a list, a moment or a letter later."""
    if isinstance(value, dict):
        return value | {"ref": "another"}
    if isinstance(value, list):
        return [*value[:-1], "another"]
    if isinstance(value, datetime):
        return value + TICK
    return f"{value}x" if isinstance(value, str) else [value]


def moment(random: Random) -> datetime:
    """Return one of the moments, exactly or a microsecond away from it."""
    return random.choice(MOMENTS) + random.choice((-1, 0, 0, 1)) * TICK


def interval(random: Random) -> dict[str, datetime]:
    """Return a beginning, an end, or both, in order; now and then nothing of it has come yet."""
    first = random.choice((*range(len(MOMENTS) - 1), len(MOMENTS) - 2, len(MOMENTS) - 2))
    begins, ends = MOMENTS[first], random.choice(MOMENTS[first + 1 :])
    both = {"valid_from": begins, "valid_to": ends}
    if random.random() < 0.2:
        both["valid_to"] = begins + TICK
    if random.random() < 0.5:
        del both[random.choice(("valid_from", "valid_to"))]
    return both
