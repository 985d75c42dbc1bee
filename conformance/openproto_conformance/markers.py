"""The part of a document that is generated: what stands between two marker comments."""

from __future__ import annotations

from pathlib import Path

START, END = "<!-- conformance matrix -->", "<!-- end of conformance matrix -->"


def between(document: str) -> str:
    """Return what stands between the markers; a ValueError where they are not there exactly once, in order."""
    return _split(document)[1]


def replace_between(path: Path, text: str) -> None:
    """Put `text` between the markers of a file, and leave the file alone where it says that already."""
    document = path.read_text(encoding="utf-8")
    before, old, after = _split(document)
    if (new := f"\n{text.strip()}\n") != old:
        path.write_text(f"{before}{START}{new}{END}{after}", encoding="utf-8")


def _split(document: str) -> tuple[str, str, str]:
    if document.count(START) != 1 or document.count(END) != 1 or document.index(START) > document.index(END):
        raise ValueError(f"wants the lines {START!r} and {END!r} once each, in this order")
    before, _, rest = document.partition(START)
    inside, _, after = rest.partition(END)
    return before, inside, after
