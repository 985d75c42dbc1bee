"""The kinds of value that the protocol's models are made of, each with the rule it must keep.

Every rule here is PROTOCOL "Limits checked before any I/O": the same check guards Python keywords, HTTP bodies, and
files, because all of them build the models of `requests.py`.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StringConstraints

from openproto.plain import moment

MAX_CONTENT_LENGTH = 100_000
MAX_JSON_DEPTH = 100
MAX_INTEGER_BITS = 4096
MAX_SCOPE_LENGTH = 512
LONE_SURROGATE = "must not contain lone surrogates"
EXTENSION_KEY = re.compile(r"x-[A-Za-z0-9][A-Za-z0-9._-]{0,126}")


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(LONE_SURROGATE) from None
    return text


def _text(text: str) -> str:
    if not text or text.isspace():
        raise ValueError("must not be blank")
    return _storable(text)


def _listed(values: Any) -> Any:
    if isinstance(values, str):
        raise ValueError("must be a list of texts, and is a single one; put it in brackets")
    return [] if values is None else values


def _distinct(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _wanted_tags(tags: Any) -> Any:
    """Return the tags of a filter as a tuple; one text is one tag, and not its letters."""
    if tags is None:
        return ()
    if isinstance(tags, str):
        return (tags,)
    if not isinstance(tags, list | tuple | set | frozenset):
        return tags
    return tuple(dict.fromkeys(tags)) if all(isinstance(tag, str) for tag in tags) else tuple(tags)


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is outside the years 1 to 9999 in UTC") from None


def _path(scope: str) -> str:
    if "*" in scope:
        raise ValueError("must not contain '*', which only a filter may end with")
    if not all(segment.strip() for segment in scope.split("/")):
        raise ValueError("must be a path such as 'coding/preferences', with no blank or empty segment")
    return scope


def _filter(scope: str) -> str | None:
    """Reduce the three spellings of a node to the node itself, and `*` to None, which selects everything."""
    if scope == "*":
        return None
    node = scope.removesuffix("/*") if scope.endswith("/*") else scope.removesuffix("/")
    if len(node) > MAX_SCOPE_LENGTH:
        raise ValueError(f"must be at most {MAX_SCOPE_LENGTH} characters long")
    return _path(node)


def check_json(value: object) -> None:
    """Raise ValueError for what JSON or a database cannot hold; no recursion, for the value may be very deep."""
    todo: list[tuple[object, int]] = [(value, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"must not be nested more than {MAX_JSON_DEPTH} deep")
        if isinstance(node, str):
            _storable(node)
        elif isinstance(node, float):
            if not math.isfinite(node):
                raise ValueError("must not hold NaN or infinity, which JSON cannot spell")
        elif isinstance(node, dict):
            todo.extend((part, depth + 1) for item in node.items() for part in item)
            if not all(isinstance(key, str) for key in node):
                raise ValueError("must be JSON: a key of an object is not a string")
        elif isinstance(node, list):
            todo.extend((item, depth + 1) for item in node)
        elif isinstance(node, int):
            if node.bit_length() > MAX_INTEGER_BITS:
                raise ValueError("must not hold integers of thousands of digits")
        elif node is not None:
            raise ValueError(f"must be JSON, which has no {type(node).__name__}")


# The patterns are for JSON Schema, which states as much of the rules as it can express.
_PATH_PATTERN = r"^[^\x00*/]*[^\x00*/\s][^\x00*/]*(/[^\x00*/]*[^\x00*/\s][^\x00*/]*)*$"
# The bound of the length stands first: checked by the core of pydantic, before anything of Python's is called.
_TEXT = AfterValidator(_text)
_PATTERN = Field(json_schema_extra={"pattern": r"^[^\x00]*\S[^\x00]*$"})
Content = Annotated[str, StringConstraints(max_length=MAX_CONTENT_LENGTH), _TEXT, _PATTERN]
Label = Annotated[str, StringConstraints(max_length=256), _TEXT, _PATTERN]
UserId = Label
RecordId = Annotated[str, StringConstraints(max_length=512), _TEXT, _PATTERN]
RecordIds = Annotated[list[RecordId], BeforeValidator(_listed), AfterValidator(_distinct)]
Tag = Annotated[str, StringConstraints(max_length=128), _TEXT, _PATTERN]
Tags = Annotated[list[Tag], Field(max_length=64), BeforeValidator(_listed)]
TagFilter = Annotated[tuple[Tag, ...], Field(max_length=64), BeforeValidator(_wanted_tags)]
Key = Annotated[str, StringConstraints(max_length=512), _TEXT, _PATTERN]
Version = Annotated[str, StringConstraints(max_length=64), _TEXT, _PATTERN]
ScopePath = Annotated[
    str,
    StringConstraints(max_length=MAX_SCOPE_LENGTH),
    _TEXT,
    AfterValidator(_path),
    Field(json_schema_extra={"pattern": _PATH_PATTERN}),
]
ScopeFilter = Annotated[str, _TEXT, _PATTERN, AfterValidator(_filter)]
Cursor = Label
Confidence = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, BeforeValidator(moment), AfterValidator(_utc)]


def is_absent(value: Any) -> bool:
    """Say whether an optional field is absent: None, or a list with nothing in it."""
    return value is None or value == []
