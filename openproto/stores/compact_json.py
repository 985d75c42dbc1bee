"""JSON as columns and envelopes hold it: compact, and in the characters of the text."""

from __future__ import annotations

import json
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # json.dumps makes one for each call


_decode = json.JSONDecoder().raw_decode  # a third of what json.loads takes for little


def from_json(text: str) -> Any:
    """Return what JSON of `to_json` says."""
    return _decode(text)[0]


def to_json(value: Any) -> str:
    """Return `value` as compact JSON."""
    return _encode(value)
