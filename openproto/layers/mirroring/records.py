"""A record at the primary and at the mirror: what is written of it there, and in which fields the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openproto.models import MemoryRecord

MIGRATED = "x-migrated"
"""The extension in which a record that could not keep its id names it; `openproto migrate` reads and writes it too."""

CHANGEABLE = frozenset({"content", "scope", "tags", "source", "confidence", "valid_to", "extensions", "supersedes"})
"""What `update` can change."""

_KEPT = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")
_RESTORED = ("created_at", "updated_at", "superseded_by")
"""What only a provider that restores can be given."""


def origin_of(record: MemoryRecord, primary: str) -> str:
    """Return the id that a record of the mirror has at the primary."""
    made_of = _made_of(record, primary)
    return str(made_of["id"]) if made_of is not None else record.id


def fields_of(record: MemoryRecord, primary: str, ids: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of the input that makes a record anew at the mirror, which gives it another id."""
    wire = record.to_wire()
    made_of: dict[str, Any] = {
        "from": primary,
        **{name: wire[name] for name in ("id", "created_at", "updated_at") if name in wire},
    }
    if (earlier := record.extensions.get(MIGRATED)) is not None:
        made_of["earlier"] = earlier
    return {
        **{name: getattr(record, name) for name in _KEPT},
        "supersedes": [ids[id] for id in record.supersedes if id in ids],
        **record.extensions,
        MIGRATED: made_of,
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
    if one.extensions != _extensions(other, primary):
        found.append("extensions")
    return found


def _extensions(record: MemoryRecord, primary: str) -> dict[str, Any]:
    made_of = _made_of(record, primary)
    if made_of is None:
        return record.extensions
    others = {name: value for name, value in record.extensions.items() if name != MIGRATED}
    return {**others, MIGRATED: made_of["earlier"]} if "earlier" in made_of else others


def _made_of(record: MemoryRecord, primary: str) -> dict[str, Any] | None:
    made_of = record.extensions.get(MIGRATED)
    if isinstance(made_of, dict) and made_of.get("from") == primary and "id" in made_of:
        return made_of
    return None
