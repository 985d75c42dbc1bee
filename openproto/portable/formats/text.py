"""Markdown and plain text: a memory for each item of a list, and for each paragraph."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from openproto import InvalidRequestError
from openproto.portable.formats.format import Entry, memory
from openproto.portable.formats.json_files import LONGEST

NAME, DESCRIBED = "text", "Markdown or plain text"

_HEADING = re.compile(r"#{1,6}\s+(.*?)\s*#*")
_RULE = re.compile(r"(?:[-*_=]\s*){3,}")
_BULLET = re.compile(r"(?:[-*+•]|\d{1,9}[.)])\s+(?:\[[ xX]\]\s+)?(?=\S)")
_MOST_HELD = 1_000_000
"""Characters of a paragraph that are held; it is too long for a memory long before."""


def paragraphs(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """Yield each paragraph and each item of a list: its first line's number, the heading it is under, and its text."""
    heading, first, size = "", 0, 0
    held: list[str] = []
    for number, line in chain(lines, [(0, "")]):
        text = line.strip()
        is_rule = _RULE.fullmatch(text) is not None
        bullet, title = _BULLET.match(text), _HEADING.fullmatch(text)
        if held and (not text or is_rule or bullet or title):
            yield first, heading, "\n".join(held)
            held, size = [], 0
        if title:
            heading = title[1]
        elif text and not is_rule and size < _MOST_HELD:
            first = first if held else number
            held.append(text[bullet.end() :] if bullet else text)
            size += len(text)


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Yield a memory for each paragraph and each item of a list."""
    file.seek(0)
    for number, heading, content in paragraphs(_lines(file)):
        about = {"heading": heading or None}
        try:
            content.encode()
        except UnicodeEncodeError:
            yield Entry(number, InvalidRequestError("is not in UTF-8"))
        else:
            yield Entry(number, memory("text", about, content))


def _lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    number = 0
    while raw := file.readline(LONGEST):
        number += 1
        yield number, raw.decode(errors="surrogateescape").removeprefix("\ufeff")
