"""The text of a file: how a record holds it, and how the model is shown it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from anthropic.lib.tools import ToolError

from openproto import MemoryRecord
from openproto.fields import MAX_CONTENT_LENGTH

_MOST_LINES = 999_999
_NUMBER_WIDTH = len(str(_MOST_LINES))


def fields_of(text: str) -> dict[str, Any]:
    """Return the fields of a record that hold `text`: its content, and what content cannot hold as an extension."""
    if text.strip() and len(text) <= MAX_CONTENT_LENGTH:
        return {"content": text, "x_anthropic_memory": None}
    shown = text[:MAX_CONTENT_LENGTH]
    return {"content": shown if shown.strip() else "(no text)", "x_anthropic_memory": {"text": text}}


def text_of(record: MemoryRecord) -> str:
    """Return the text that `fields_of` put into the record."""
    kept: Any = record.extensions.get("x-anthropic-memory")
    return str(kept["text"]) if kept else record.content


def numbered(path: str, text: str, view_range: list[int] | None) -> str:
    """Return the lines of a file, or those of a range that counts from 1 and ends with -1 at the last."""
    lines = text.split("\n")
    if len(lines) > _MOST_LINES:
        raise ToolError(f"File {path} exceeds maximum line limit of 999,999 lines.")
    first, last = 1, len(lines)
    if view_range and len(view_range) == 2:
        first = max(1, view_range[0])
        last = len(lines) if view_range[1] == -1 else view_range[1]
    return f"Here's the content of {path} with line numbers:\n" + with_numbers(lines[first - 1 : last], first)


def with_numbers(lines: list[str], first: int) -> str:
    """Return the lines, each behind its number."""
    return "\n".join(f"{number:>{_NUMBER_WIDTH}}\t{line}" for number, line in enumerate(lines, first))


def occurrences(text: str, part: str) -> Iterator[int]:
    """Yield where `part` begins in the text; occurrences may overlap."""
    at = text.find(part)
    while at != -1:
        yield at
        at = text.find(part, at + 1)


def size(count: int) -> str:
    """Return a number of bytes as people write it."""
    unit = min(max(count.bit_length() - 1, 0) // 10, 3)
    value = count / 1024**unit
    return f"{int(value)}{'BKMG'[unit]}" if value == int(value) else f"{value:.1f}{'BKMG'[unit]}"
