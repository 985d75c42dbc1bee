"""Reading JSON as a stream of items: lines of objects, a list however long, or one document that holds lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import TextIOWrapper
from itertools import islice
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from openproto import InvalidRequestError

LONGEST = 32 * 2**20
"""Bytes in a line, or in one item of a list: content at its longest, every character escaped, and many extensions."""

LONGEST_DOCUMENT = 256 * 2**20
"""Bytes in a document that is one object, and so must be held as a whole."""

LISTS = ("results", "memories", "items", "facts", "edges", "passages", "blocks", "data", "conversations")
"""Under which names a document holds what it is a list of."""

Shape: TypeAlias = Literal["lines", "list", "document"]

_CUT = "is not JSON, or the file was cut here; nothing after it can be read"
_TOO_LONG = f"is longer than {LONGEST} characters; nothing after it can be read"

_CHUNK = 2**16
_BLANK = " \t\r\n"
_SAMPLE = 20


class Numbered(NamedTuple):
    """An item and its place: the number of its line, or its number in the list."""

    number: int
    value: Any
    """An InvalidRequestError where it cannot be read."""


def shape_of(file: BinaryIO) -> Shape:
    """Return how the JSON in `file` is laid out; lines, one of which is broken, are lines."""
    file.seek(0)
    lines = (raw for _, raw in numbered(file))
    first, second = next(lines, None), next(lines, None)
    if first is not None and first.lstrip(b"\xef\xbb\xbf" + _BLANK.encode()).startswith(b"["):
        return "list"
    if first is None:
        return "lines"
    with suppress(InvalidRequestError):
        parse_object(first)
        return "lines" if second is not None else "document"
    with suppress(InvalidRequestError):
        document(file)
        return "document"
    return "lines"


def sample(items: Iterator[Numbered]) -> Sequence[Any]:
    """Return the first few items that can be read."""
    return [each.value for each in islice(items, _SAMPLE) if not isinstance(each.value, InvalidRequestError)]


def numbered(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line that is not blank and its number; None stands for one that is too long to be held."""
    number = 0
    while raw := file.readline(LONGEST):
        number += 1
        if len(raw) == LONGEST and not raw.endswith(b"\n"):
            while (rest := file.readline(LONGEST)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        elif raw.strip():
            yield number, raw


def line_items(file: BinaryIO) -> Iterator[Numbered]:
    """Yield the object on each line."""
    file.seek(0)
    for number, raw in numbered(file):
        try:
            yield Numbered(number, parse_object(raw))
        except InvalidRequestError as error:
            yield Numbered(number, error)


def parse_object(raw: bytes | None) -> dict[str, Any]:
    """Return the JSON object that a line is; InvalidRequestError, which never repeats the line, where it is none."""
    if raw is None:
        raise InvalidRequestError(f"is longer than {LONGEST} bytes")
    try:
        fields = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise InvalidRequestError("is not JSON, or not in UTF-8") from None
    if not isinstance(fields, dict):
        raise InvalidRequestError("is not a JSON object")
    return fields


def document(file: BinaryIO) -> dict[str, Any]:
    """Return the one object that the file is."""
    file.seek(0)
    text = file.read(LONGEST_DOCUMENT + 1)
    if len(text) > LONGEST_DOCUMENT:
        raise InvalidRequestError(
            f"the file is one JSON object of more than {LONGEST_DOCUMENT} bytes; write the items of its list one per "
            "line, as `jq -c '.results[]' FILE` does"
        )
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequestError("the file is not JSON, or was cut; export it again") from None
    if not isinstance(found, dict):
        raise InvalidRequestError("the file is JSON, and must be an object, a list, or an object on each line")
    return found


def listed(found: dict[str, Any]) -> tuple[Sequence[Any], Sequence[str]]:
    """Return the items of the lists in a document, and the names of what it holds beside them."""
    names = [name for name in LISTS if isinstance(found.get(name), list)]
    beside = [name for name, value in found.items() if name not in names and value and isinstance(value, list | dict)]
    return [item for name in names for item in found[name]], beside


def list_items(file: BinaryIO) -> Iterator[Numbered]:
    """Yield the items of the list that the file is, holding one at a time."""
    file.seek(0)
    text = TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    try:
        yield from _list_items(text)
    finally:
        text.detach()


def _list_items(text: TextIOWrapper) -> Iterator[Numbered]:
    decode = json.JSONDecoder().raw_decode
    held, at, number = text.read(_CHUNK).lstrip(_BLANK + "\ufeff")[1:], 0, 0
    ended = False
    while True:
        at = _skip(held, at)
        if held[at : at + 1] == "]":
            return
        start = _skip(held, at + 1) if number and held[at : at + 1] == "," else at
        try:
            if number and start == at:
                raise ValueError
            value, end = decode(held, start)
            if end == len(held) and not ended:
                raise ValueError  # a number may go on
        except (ValueError, RecursionError):
            held, at = held[at:], 0
            if ended or len(held) > LONGEST:
                yield Numbered(number + 1, InvalidRequestError(_CUT if ended else _TOO_LONG))
                return
            more = text.read(max(_CHUNK, len(held)))
            held, ended = held + more, not more
            continue
        number += 1
        yield Numbered(number, value)
        at = end
        if at > _CHUNK:
            held, at = held[at:], 0


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in _BLANK and at < len(text):
        at += 1
    return at
