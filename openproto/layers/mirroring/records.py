"""A record at the primary and at the mirror: what is written of it there, and in which fields the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openproto.models import MemoryRecord, Origins

CHANGEABLE = frozenset({"content", "scope", "tags", "source", "confidence", "valid_to", "extensions", "supersedes"})
"""What `update` can change."""

_KEPT = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")
_RESTORED = ("created_at", "updated_at", "superseded_by")
"""What only a provider that restores can be given."""


def fields_of(record: MemoryRecord, primary: str, ids: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the input that makes a record anew at the mirror, which gives it another id."""
    return {
        **{name: getattr(record, name) for name in _KEPT},
        "supersedes": [ids[id] for id in record.supersedes if id in ids],
        **record.extensions,
        Origins.EXTENSION: Origins(primary).note(record),
    }


def differences(one: MemoryRecord, other: MemoryRecord, primary: str, ids: Mapping[str, str] | None) -> list[str]:
    """Return the names of the fields in which the mirror's record, `other`, is not what it should be.

    `ids` has the mirror's ids of records that have others there; None where records keep their ids and moments.
    """
    names = _KEPT if ids is not None else (*_KEPT, *_RESTORED)
    found = [name for name in names if (getattr(one, name) or None) != (getattr(other, name) or None)]
    supersedes = one.supersedes if ids is None else [ids[id] for id in one.supersedes if id in ids]
    if sorted(supersedes) != sorted(other.supersedes):
        found.append("supersedes")
    if one.extensions != Origins(primary).extensions_of(other):
        found.append("extensions")
    return found
