"""What a store may be asked: what breaks one of these rules is `invalid_request`, and nothing is read or written."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from openproto.errors import InvalidRequestError

CONTENT_LENGTH = 100_000
USER_LENGTH = 256
KEY_LENGTH = 512
ID_LENGTH = 512
SCOPE_LENGTH = 512
TAG_LENGTH = 128
MOST_TAGS = 64
JSON_DEPTH = 100
_SURROGATE = re.compile("[\ud800-\udfff]")
EXTENSION = re.compile(r"x-[A-Za-z0-9][A-Za-z0-9._-]{0,126}")


def refuse_unless(condition: object, rule: str) -> None:
    """Raise InvalidRequestError unless the rule is kept."""
    if not condition:
        raise InvalidRequestError(rule)


def check_text(value: object, most: int, what: str) -> None:
    """A text is not blank, not too long, and holds neither NUL nor half a surrogate pair."""
    refuse_unless(isinstance(value, str), f"{what} is a text")
    text = str(value)
    refuse_unless(text.strip(), f"{what} is not blank")
    refuse_unless(len(text) <= most, f"{what} has at most {most} characters")
    check_storable(text, what)


def check_storable(text: str, what: str) -> None:
    """No text holds NUL or half a surrogate pair: PostgreSQL cannot store them."""
    refuse_unless("\0" not in text, f"{what} holds no NUL")
    refuse_unless(_SURROGATE.search(text) is None, f"{what} holds no lone surrogate")


def check_scope(scope: str) -> None:
    """A scope is a path whose segments are not blank; `*` is for filters."""
    check_text(scope, SCOPE_LENGTH, "scope")
    refuse_unless("*" not in scope, "scope holds no '*'")
    refuse_unless(all(segment.strip() for segment in scope.split("/")), "no segment of scope is blank")


def check_tags(tags: Sequence[str]) -> None:
    """At most 64 tags of at most 128 characters."""
    refuse_unless(len(tags) <= MOST_TAGS, f"at most {MOST_TAGS} tags")
    for tag in tags:
        check_text(tag, TAG_LENGTH, "a tag")


def check_confidence(value: object) -> None:
    """A confidence, like a score, is a number from 0 to 1."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    refuse_unless(number and 0 <= value <= 1, "confidence is a number from 0 to 1")  # type: ignore[operator]  # a number


def moment(value: datetime, what: str) -> datetime:
    """Return an aware moment in UTC; a naive one is refused."""
    refuse_unless(isinstance(value, datetime) and value.tzinfo is not None, f"{what} is a moment with its offset")
    return value.astimezone(UTC)


def check_interval(valid_from: datetime | None, valid_to: datetime | None) -> None:
    """What is valid is valid for at least a moment."""
    if valid_from is not None and valid_to is not None:
        refuse_unless(valid_from < valid_to, "valid_to is later than valid_from")


def check_extension(name: str, value: object) -> None:
    """An extension is named `x-<provider>` and holds JSON, not nested without end."""
    refuse_unless(EXTENSION.fullmatch(name), f"{name!r} is not the name of an extension")
    check_json(value, 0)


def check_json(value: object, depth: int) -> None:
    """JSON: null, booleans, numbers that are finite, texts, lists, and objects with texts for keys."""
    refuse_unless(depth <= JSON_DEPTH, f"an extension is nested at most {JSON_DEPTH} deep")
    if isinstance(value, str):
        check_storable(value, "an extension")
    elif isinstance(value, float):
        refuse_unless(math.isfinite(value), "an extension holds neither NaN nor infinity")
    elif isinstance(value, Mapping):
        for key, part in value.items():
            refuse_unless(isinstance(key, str), "the keys of an object are texts")
            check_storable(key, "an extension")
            check_json(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            check_json(part, depth + 1)
    else:
        refuse_unless(value is None or isinstance(value, bool | int), "an extension is JSON")


CHECKS: dict[str, Callable[[Any], None]] = {
    "content": lambda value: check_text(value, CONTENT_LENGTH, "content"),
    "user_id": lambda value: check_text(value, USER_LENGTH, "user_id"),
    "key": lambda value: check_text(value, KEY_LENGTH, "key"),
    "idempotency_key": lambda value: check_text(value, USER_LENGTH, "idempotency_key"),
    "scope": check_scope,
    "tags": check_tags,
    "confidence": check_confidence,
}
"""The rule of each field that has one by itself."""
