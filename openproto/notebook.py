"""How results look in a notebook: small HTML tables, in which stored text is text and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_LONGEST_CELL = 300


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table; a long cell is cut, and what is None stays empty."""
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    below = f"<p>{escape(note)}</p>" if note else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: object) -> str:
    text = "" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return escape(text if len(text) <= _LONGEST_CELL else text[: _LONGEST_CELL - 1] + "…")
