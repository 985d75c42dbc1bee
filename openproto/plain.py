"""What comes from outside, as the protocol's own plain types: done once, before anything else looks at a value.

Test clocks, data frames, and enumerations hand in subclasses of `str`, `int`, and `datetime` that behave otherwise than
what they look like, and that databases and encoders look up by their exact class.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

from openproto.errors import InvalidRequestError

_EXACT = frozenset({str, int, float, bool, type(None)})
_DEEPEST = 110
"""Past the depth that any field may have: what is deeper is left for its own check to refuse."""

_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt_ ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)? ?(?:[Zz]|([+-])(\d\d):?(\d\d)?)", re.ASCII
)
NOT_A_MOMENT = "must be a moment with an offset, such as '2026-01-31T12:00:00Z'"


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` as str, int, float, bool, datetime, list, or dict; what is none of these is returned as it is."""
    kind = type(value)
    if kind in _EXACT or depth > _DEEPEST:
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
    if type(value) in _EXACT:
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
