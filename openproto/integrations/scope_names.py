"""Names of other systems as segments of a scope: any text, reversibly, so that no two names share a segment."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

_RESERVED = re.compile(r"[%/*]")


def scope_segment(name: str) -> str:
    """Return `name` as one segment of a scope.

    `%`, `/`, and `*` are percent-encoded, and so is all of a blank name; the empty name is `%`.
    """
    if not name.strip():
        return quote(name, safe="") or "%"
    return _RESERVED.sub(lambda found: f"%{ord(found[0]):02X}", name)


def segment_name(segment: str) -> str:
    """Return the name that `scope_segment` made `segment` of."""
    return "" if segment == "%" else unquote(segment)
