"""The kinds of value that the protocol's models are made of: how each is read, and the rule it must keep.

Every rule here is PROTOCOL "Limits checked before any I/O": the same check guards Python keywords, HTTP bodies, and
files, because all of them build the models of `requests.py`. Before any rule looks at a value, `plain` makes it one of
the protocol's own types: test clocks, data frames, and enumerations pass subclasses of `str`, `int`, and `datetime`
that behave otherwise than what they look like, and that databases and encoders look up by their exact class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from functools import cache, lru_cache
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, Field, StringConstraints

from openproto.errors import InvalidRequestError

M = TypeVar("M", bound=BaseModel)
S = TypeVar("S", list[str], tuple[str, ...])

MAX_CONTENT_LENGTH = 100_000
MAX_LABEL_LENGTH = 256
MAX_TAG_LENGTH, MAX_TAGS = 128, 64
MAX_ID_LENGTH = MAX_KEY_LENGTH = 512
MAX_JSON_DEPTH = 100
MAX_INTEGER_BITS = 4096
MAX_SCOPE_LENGTH = 512
LONE_SURROGATE = "must not contain lone surrogates"
EXTENSION_KEY = re.compile(r"x-[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
EXACT = frozenset({str, int, float, bool, type(None)})
_DEEPEST = 110
"""Past the depth that any field may have: what is deeper is left for its own check to refuse."""

_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt_ ]((?!24)\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?(?:[Zz]|([+-])(\d\d):?(\d\d)?)", re.ASCII
)
_LENGTH = len("2026-01-31T12:00:00.000000Z")
_new = object.__new__
_set_fields, _set_given, _set_extra, _set_private = (
    vars(BaseModel)[f"__{slot}__"].__set__
    for slot in ("dict", "pydantic_fields_set", "pydantic_extra", "pydantic_private")
)
NOT_A_MOMENT = "must be a moment with an offset, such as '2026-01-31T12:00:00Z'"


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as str, int, float, bool, datetime, list, or dict; what is none of these is returned as it is."""
    kind = type(value)
    if kind in EXACT or depth > _DEEPEST:
        return value
    if isinstance(value, Enum):
        return plain(value.value, depth + 1)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, datetime):
        return value if kind is datetime else _datetime(value)
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {plain(name, depth + 1): plain(item, depth + 1) for name, item in value.items()}
    if getattr(value, "shape", None) == () and callable(item := getattr(value, "item", None)):  # a scalar of an array
        return plain(item(), depth + 1)
    return value


def plain_field(name: Any, value: Any) -> Any:
    """Return `plain(value)`; a fault of the value's own methods is a ValueError that names the field."""
    if type(value) in EXACT:
        return value
    try:
        return plain(value)
    except Exception as error:
        raise ValueError(f"{name}: is a {type(value).__name__} that cannot be read") from error


def moment(value: Any) -> datetime:
    """Return the moment that `value` is or spells, as RFC 3339 does and as people write it; ValueError otherwise.

    Beyond RFC 3339 a blank or an underscore may stand for the `T`, the seconds and the colon of the offset may be left
    out, and a comma may stand before the fraction. A day without a time and a time without an offset are not moments.
    """
    if isinstance(value, datetime):
        return value
    if type(value) is str and len(value) == _LENGTH and value[7] + value[10] + value[19] + value[-1] == "-T.Z":
        with suppress(ValueError):  # a leap second is one
            return datetime.fromisoformat(value)  # how this project spells moments itself, in a tenth of the time
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(NOT_A_MOMENT)
    day, time, seconds, fraction, sign, hours, minutes = match.groups()
    try:
        # A leap second is the first of the next minute.
        leap = seconds == "60"
        read = datetime.fromisoformat(f"{day}T{time}:{'59' if leap else seconds or '00'}")
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        zone = timezone(-offset if sign == "-" else offset) if offset else UTC
        micros = int((fraction or "0")[:6].ljust(6, "0"))
        return read.replace(tzinfo=zone) + timedelta(seconds=leap, microseconds=micros)
    except (ValueError, OverflowError):
        raise ValueError("names a day, time, or offset that does not exist") from None


def texts(name: str, values: Iterable[str]) -> list[str]:
    """Return an iterable of texts as a list; InvalidRequestError for one text, which is not a list of its letters."""
    if isinstance(values, str | bytes):
        raise InvalidRequestError(f"{name}: must be a list of texts, and is a single one; put it in brackets")
    if isinstance(values, Mapping) or not isinstance(values, Iterable):
        raise InvalidRequestError(f"{name}: must be a list of texts, and is a {type(values).__name__}")
    found = [plain(value) for value in values]
    if wrong := [number for number, value in enumerate(found) if not isinstance(value, str)]:
        raise InvalidRequestError(f"{name}.{wrong[0]}: must be a text")
    return found


def is_text(value: Any, most: int) -> bool:
    """Say whether `value` is what `Content`, `Label`, or `RecordId` take, at most so long, and as it is."""
    if type(value) is not str or len(value) > most:
        return False
    try:
        _text(value)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=4096)
def is_scope(value: str) -> bool:
    """Say the same of a plain text and `ScopePath`; many records share one."""
    try:
        return is_text(value, MAX_SCOPE_LENGTH) and bool(_path(value))
    except ValueError:
        return False


@lru_cache(maxsize=4096)
def is_label(value: str) -> bool:
    """Say the same of a plain text and `Label`, which names of users are."""
    return is_text(value, MAX_LABEL_LENGTH)


@lru_cache(maxsize=4096)
def is_tag(value: str) -> bool:
    """Say the same of a plain text and `Tag`."""
    return is_text(value, MAX_TAG_LENGTH)


def of_valid(model: type[M], fields: dict[str, Any], extra: dict[str, Any] | None, given: set[str]) -> M:
    """Return what validating would, of all the model's fields, in order, whose values are known to be valid.

    For what is made by the thousand. `given` names the fields that were given; many may share it, for none changes it.
    """
    made = _new(model)
    # What pydantic's model_construct does in the end; its search for defaults and aliases takes longer than
    # validating everything again.
    _set_fields(made, fields)
    _set_given(made, given)
    _set_extra(made, extra)
    _set_private(made, None)
    return made


@cache
def names_of(model: type[BaseModel]) -> set[str]:
    """Return the names of the model's fields: one set for all that have no more than these."""
    return {*model.model_fields}


def _datetime(value: datetime) -> datetime:
    """Return a plain datetime of the same moment, whatever the subclass makes of the methods."""
    try:
        read = datetime(
            *(getattr(value, part) for part in ("year", "month", "day", "hour", "minute", "second", "microsecond")),
            fold=value.fold,
        )
        offset = value.utcoffset()
        return read if offset is None else read.replace(tzinfo=timezone(offset))
    except Exception as error:
        raise ValueError(NOT_A_MOMENT) from error


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


def _distinct(values: S) -> S:
    return type(values)(dict.fromkeys(values))


def _wanted_tags(tags: Any) -> Any:
    """Return the tags of a filter as a tuple; one text is one tag, and not its letters."""
    if tags is None:
        return ()
    if isinstance(tags, str):
        return (tags,)
    if not isinstance(tags, list | tuple | set | frozenset):
        return tags
    return tuple(tags)


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
Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_LENGTH), _TEXT, _PATTERN]
UserId = Label
RecordId = Annotated[str, StringConstraints(max_length=MAX_ID_LENGTH), _TEXT, _PATTERN]
RecordIds = Annotated[list[RecordId], BeforeValidator(_listed), AfterValidator(_distinct)]
Tag = Annotated[str, StringConstraints(max_length=MAX_TAG_LENGTH), _TEXT, _PATTERN]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), BeforeValidator(_listed)]
# The tags are counted as they were given, which is what `maxItems` of the OpenAPI document says.
TagFilter = Annotated[
    tuple[Tag, ...], Field(max_length=MAX_TAGS), BeforeValidator(_wanted_tags), AfterValidator(_distinct)
]
Key = Annotated[str, StringConstraints(max_length=MAX_KEY_LENGTH), _TEXT, _PATTERN]
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


# Numbers among the options of a constructor: checked when the object is made, not when a number is first used.


def check_whole(least: int = 1, /, **options: int) -> None:
    """Raise TypeError for an option that is no int, or a bool, which Python takes for one; ValueError below `least`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, and is a {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more")


def check_seconds(*, or_zero: bool = False, **options: float) -> None:
    """Raise TypeError for an option that is no number, ValueError for one that is no length of time."""
    for name, value in options.items():
        check_number(**{name: value})
        if value == 0 and not or_zero:
            raise ValueError(f"{name} must be more than 0 seconds")


def check_number(**options: float) -> None:
    """Raise TypeError for an option that is no number, ValueError for one below 0, an infinite one, or NaN."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, and is a {type(value).__name__}")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be 0 or more, and finite")
