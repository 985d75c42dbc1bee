"""JSON that a terminal may show as it is."""

from __future__ import annotations

import re

_HARMFUL = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def clean_json(text: str) -> str:
    """Return JSON that means the same and that a terminal shows as it is; JSON itself escapes only C0."""
    return _HARMFUL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
