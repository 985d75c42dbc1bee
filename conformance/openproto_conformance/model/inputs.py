"""What callers write, brought to one form: absent is None or an empty list, moments are in UTC, numbers are floats."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from openproto.models import MemorySource
from openproto_conformance.model import limits

FIELDS = (
    "content",
    "user_id",
    "scope",
    "tags",
    "source",
    "confidence",
    "valid_from",
    "valid_to",
    "supersedes",
    "key",
)
CHANGEABLE = ("content", "scope", "tags", "source", "confidence", "valid_to", "supersedes")


def input_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return every field of a record to be, checked; an extension that is null is absent."""
    fields: dict[str, Any] = {name: _field(name, given.get(name)) for name in FIELDS}
    for name in ("content", "user_id"):
        limits.refuse_unless(fields[name] is not None, f"{name} is required")
    limits.check_interval(fields["valid_from"], fields["valid_to"])
    for name in given.keys() - set(FIELDS):
        limits.check_extension(name, given[name])
        if given[name] is not None:
            fields[name] = given[name]
    return fields


def change_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an update changes, checked: None clears a field, which `content` does not allow."""
    limits.refuse_unless(given.get("content", "something") is not None, "content cannot be cleared")
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name in CHANGEABLE:
            changes[name] = None if name == "supersedes" and value is None else _field(name, value)
        else:
            limits.check_extension(name, value)
            changes[name] = value
    return changes


def _field(name: str, value: Any) -> Any:
    if name in ("tags", "supersedes"):
        values = list(value or ())
        if name == "tags":
            limits.check_tags(values)
            return values
        for id in values:
            limits.check_text(id, limits.ID_LENGTH, "an id")
        return list(dict.fromkeys(values))
    if value is None:
        return None
    if name == "source":
        return MemorySource(**value)
    if name in ("valid_from", "valid_to"):
        return limits.moment(value, name)
    limits.CHECKS[name](value)
    return float(value) if name == "confidence" else value


def same(one: object, other: object) -> bool:
    """Whether two values are the same to the last type: True is not 1, and 1 is not 1.0."""
    if type(one) is not type(other):
        return isinstance(one, str) and isinstance(other, str) and str(one) == str(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def plain(content: str) -> str:
    """Return a text without what does not make it say another thing: case, blanks, width, and its full stop."""
    text = " ".join(unicodedata.normalize("NFKC", content).casefold().split())
    return text.rstrip(" .!\u3002\u0964\u06d4") or text
