"""CSV: rows under a header whose names say what each column is."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from typing import Any, BinaryIO

from openproto import InvalidRequestError
from openproto.portable.formats.format import Entry, Fields, memory, texts

NAME, DESCRIBED = "csv", "CSV"

_COLUMNS: Mapping[str, Sequence[str]] = {
    "content": ("content", "memory", "text", "fact", "note"),
    "id": ("id", "uuid", "memory_id"),
    "user_id": ("user_id", "user", "userid", "username"),
    "scope": ("scope", "namespace", "folder"),
    "tags": ("tags", "tag", "categories", "category", "labels"),
    "confidence": ("confidence",),
    "key": ("key",),
    "valid_from": ("valid_from", "valid_at"),
    "valid_to": ("valid_to", "invalid_at", "expires_at"),
}
"""Which names a column may have to be read as a field; the first that the header has is taken."""

_DELIMITERS = ",;\t|"
_LONGEST_CELL = 1_000_000
_BETWEEN_TAGS = str.maketrans(";|", ",,")


def delimiter_of(header: str) -> str | None:
    """Return what separates the columns, or None where the line is no header with a column of content."""
    delimiter = max(_DELIMITERS, key=header.count)
    names = _names(next(csv.reader([header], delimiter=delimiter), []))
    is_table = len(names) > 1 or names[:1] in (["content"], ["memory"])
    return delimiter if is_table and any(name in _COLUMNS["content"] for name in names) else None


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Yield a memory for each row, and why there is none, under the number of the row's last line."""
    file.seek(0)
    text = TextIOWrapper(file, "utf-8", errors="surrogateescape", newline="")
    csv.field_size_limit(_LONGEST_CELL)
    try:
        yield from _rows(text)
    finally:
        text.detach()


def _rows(text: TextIOWrapper) -> Iterator[Entry]:
    header = text.readline(_LONGEST_CELL)
    delimiter = delimiter_of(header)
    if delimiter is None:
        raise InvalidRequestError(
            "the first line of the file must name its columns, and one of them content, memory, text, fact, or note"
        )
    names = _names(next(csv.reader([header], delimiter=delimiter)))
    columns = {field: name for field, known in _COLUMNS.items() for name in reversed(known) if name in names}
    rows = csv.reader(text, delimiter=delimiter)
    while True:
        try:
            row = next(rows, None)
        except csv.Error:
            yield Entry(rows.line_num + 1, InvalidRequestError("is no row of CSV: a quote in or before it has no end"))
            continue
        if row is None:
            return
        if any(cell.strip() for cell in row):
            yield Entry(rows.line_num + 1, _fields(names, columns, row))


def _fields(names: Sequence[str], columns: Mapping[str, str], row: Sequence[str]) -> Fields | InvalidRequestError:
    if len(row) > len(names):
        return InvalidRequestError("has more cells than the header names; put quotes around a cell with a separator")
    cells = {name: cell for name, cell in zip(names, row, strict=False) if cell.strip()}
    fields: dict[str, Any] = {field: cells.pop(name, None) for field, name in columns.items()}
    content = fields.pop("content", None)
    if fields.get("tags"):
        fields["tags"] = _tags(fields["tags"])
    if fields.get("confidence"):
        try:
            fields["confidence"] = float(fields["confidence"])
        except ValueError:
            return InvalidRequestError("confidence: must be a number")
    return memory("csv", cells, content, **fields)


def _tags(cell: str) -> list[str]:
    if cell.startswith("["):
        try:
            return texts(json.loads(cell))
        except (ValueError, RecursionError):
            pass
    return texts(cell.translate(_BETWEEN_TAGS).split(","))


def _names(cells: Sequence[str]) -> list[str]:
    return [cell.strip().lstrip("\ufeff").casefold().replace(" ", "_") for cell in cells]
