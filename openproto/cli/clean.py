"""Making stored text harmless on a terminal: it is data, and must not move the cursor, recolour, or reorder.

What is taken away are control characters (C0 and C1, so every escape sequence), line separators, lone surrogates, and
the characters that override the direction of text; each shows as its escape, such as `\\x1b`. Everything else, joiners
and right-to-left letters among it, is left alone.
"""

from __future__ import annotations

import re

_HARMFUL = r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
_block = re.compile(f"[{_HARMFUL}]")
_line = re.compile(f"[{_HARMFUL}\\\\\t\n]")
_SHORT = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def clean(text: str) -> str:
    """Return `text` with its line breaks and tabs, and nothing else that a terminal would act on."""
    return _block.sub(lambda match: _escape(match[0]), text.replace("\r\n", "\n"))


def clean_line(text: str) -> str:
    """Return `text` for people as one line: every run of white space is one space."""
    return clean(" ".join(text.split()))


def clean_field(text: str) -> str:
    """Return `text` as one field of a tab-separated line, reversibly: breaks, tabs, and backslashes are escaped."""
    return _line.sub(lambda match: _escape(match[0]), text)


def _escape(character: str) -> str:
    if short := _SHORT.get(character):
        return short
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
