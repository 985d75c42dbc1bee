"""What people have: files of other programs, recognised by what stands in them, each as a stream of memories."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, BinaryIO, Literal, TypeAlias

from openproto import InvalidRequestError
from openproto.portable.formats import json_files, table, text
from openproto.portable.formats.conversations import CHATGPT, CHATGPT_MEMORIES, CLAUDE, CLAUDE_MEMORIES
from openproto.portable.formats.format import Entry, Fields, JsonFormat, Recognised
from openproto.portable.formats.json_files import Numbered
from openproto.portable.formats.langgraph import LANGGRAPH
from openproto.portable.formats.letta import LETTA
from openproto.portable.formats.mcp import MCP
from openproto.portable.formats.mem0 import MEM0
from openproto.portable.formats.own import JSON, OWN
from openproto.portable.formats.zep import ZEP

# The most telling signs first: what has `content` may be anybody's.
_OF_JSON = (CHATGPT, CLAUDE, CLAUDE_MEMORIES, MCP, LANGGRAPH, ZEP, LETTA, MEM0, CHATGPT_MEMORIES)

NAMES = tuple(sorted([*(each.name for each in (*_OF_JSON, OWN, JSON)), table.NAME, text.NAME]))
"""What `recognise` takes for a name."""

_HEAD = 2**16

_Items: TypeAlias = Callable[[], Iterator[Numbered]]


def recognise(file: BinaryIO, name: str | None = None) -> Recognised:
    """Return what `file`, which is UTF-8, holds; with `name`, that format whatever it looks like.

    InvalidRequestError for a file that is none of these as a whole.
    """
    file.seek(0)
    head = file.read(_HEAD)
    if b"\0" in head:
        raise InvalidRequestError(
            "the file is not text; unpack an archive first, and import the files in it one after the other"
        )
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = start.partition(b"\n")[0].decode(errors="replace").strip()
    if name == table.NAME or (name is None and _is_table(first_line)):
        return _plain(table, "its first line names columns", file)
    if name == text.NAME or (name is None and not start.startswith((b"{", b"["))):
        return _plain(text, "it is neither JSON nor CSV", file)
    return _recognise_json(file, name)


def _is_table(line: str) -> bool:
    return bool(line) and line[0] not in "{[" and table.delimiter_of(line) is not None


def _plain(module: Any, why: str, file: BinaryIO) -> Recognised:
    return Recognised(module.NAME, module.DESCRIBED, why, "line", partial(module.entries, file))


def _recognise_json(file: BinaryIO, name: str | None) -> Recognised:
    shape = json_files.shape_of(file)
    known: JsonFormat | None = None
    beside: Sequence[str] = ()
    if shape == "document":
        document = json_files.document(file)
        known, values = _whole(document, name)
        if known is None:
            values, beside = _items_of(document)
        items: _Items = partial(_counted, values)
    else:
        items = partial(json_files.line_items if shape == "lines" else json_files.list_items, file)
    found = known or _format_of(json_files.sample(items()), shape, name)
    why = found.sign + (f"; {', '.join(beside)} in it are left out" if beside else "")
    unit: Literal["line", "item"] = "line" if shape == "lines" or found is OWN else "item"
    entries = partial(_entries, found, items)
    return Recognised(found.name, found.described, why, unit, entries, found.holds_conversations)


def _whole(document: Fields, name: str | None) -> tuple[JsonFormat | None, Sequence[Any]]:
    """Return the format that the document as a whole is of, if there is one, and its items."""
    for each in _OF_JSON:
        if name in (None, each.name) and (items := each.items_of(document)) is not None:
            return each, items
    return None, ()


def _items_of(document: Fields) -> tuple[Sequence[Any], Sequence[str]]:
    items, beside = json_files.listed(document)
    if items and not any(each.is_item(document) for each in (*_OF_JSON, OWN)):
        return items, beside
    return [document], ()


def _counted(values: Sequence[Any]) -> Iterator[Numbered]:
    return (Numbered(number, value) for number, value in enumerate(values, 1))


def _format_of(items: Sequence[Any], shape: str, name: str | None) -> JsonFormat:
    # Lines are read as strictly as `add` reads; what other programs wrote as one document may have fields of theirs.
    known = (*_OF_JSON, JSON, OWN) if shape == "list" else (*_OF_JSON, OWN, JSON)
    if name is not None:
        return next(each for each in known if each.name == name)
    objects = [item for item in items if isinstance(item, dict)]
    for each in known:
        if any(each.is_item(item) for item in objects):
            return each
    if shape == "lines":
        return OWN
    if all(isinstance(item, str) for item in items):
        return JSON
    raise InvalidRequestError(
        "the file is JSON, but its form is not known; name the form that it is meant to have with --format, one of "
        f"{', '.join(NAMES)}"
    )


def _entries(found: JsonFormat, items: _Items) -> Iterator[Entry]:
    for number, value in items():
        if found is JSON and isinstance(value, str):
            value = {"content": value}
        if isinstance(value, InvalidRequestError) or not isinstance(value, dict):
            yield Entry(number, _fault(value))
            continue
        made = iter(found.read(value))
        try:
            yield from (Entry(number, fields) for fields in made)
        except (LookupError, TypeError, AttributeError, ValueError):
            yield Entry(number, InvalidRequestError(f"is not as {found.described} are written"))


def _fault(value: Any) -> InvalidRequestError:
    return value if isinstance(value, InvalidRequestError) else InvalidRequestError("is not a JSON object")


__all__ = ["NAMES", "Entry", "Recognised", "recognise"]
