"""Whether two stores have the same: which record was made of which, and in what fields the two differ.

A record is known by its id, or where it could not keep that by its origin.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from openproto import MemoryRecord
from openproto.models import Origins, StoredRecord

_OWN = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")
_LINKS = ("supersedes", "superseded_by")
_MOMENTS = ("created_at", "updated_at")
"""All that is compared; `embedding_model`, `status`, and `version` are each store's own."""


_encode = json.JSONEncoder(sort_keys=True).encode


class Marks(NamedTuple):
    """Digests by which records are compared without being held."""

    own: bytes
    """Of what only a change of the record itself changes, but for what it supersedes. A journal keeps this one."""
    supersedes: bytes
    superseded_by: bytes
    moments: bytes
    history: bytes | None
    """Of the moments of supersession; None where they are not known."""

    def says_the_same(self, other: Marks, *, anew: bool) -> bool:
        """Say whether nothing differs; a record that was added `anew` has other moments."""
        return self[:3] == other[:3] and (anew or (self.moments == other.moments and self.has_history_of(other)))

    def has_history_of(self, other: Marks) -> bool:
        """Say whether the moments of supersession are the same, as far as both are known."""
        return None in (self.history, other.history) or self.history == other.history


class Matching:
    """Compares the records of a target with those of a source, which is named by its provider.

    Fields that the target has no place for, `unkept`, are left out.
    """

    def __init__(self, source: str, unkept: Collection[str] = ()) -> None:
        self.origins = Origins(source)
        self._own = [name for name in _OWN if name not in unkept]  # and the extensions
        self._has_links = "supersedes" not in unkept

    def own(self, record: MemoryRecord) -> bytes:
        """Return the first of a record's digests."""
        # Making the JSON form of a whole record takes longer than all else here.
        if record.source or record.valid_from or record.valid_to or record.model_extra:
            wire = record.to_wire()
            return _digest(
                [*(wire.get(name) or None for name in self._own), self.origins.extensions_of(record) or None]
            )
        fields = vars(record)
        return _digest([*[fields[name] or None for name in self._own], None])

    def marks(self, stored: StoredRecord, origins: Mapping[str, str]) -> Marks:
        """Return the record's digests; `origins` has the source's ids of the target's records that have others."""
        record = stored.record
        supersedes = superseded_by = b""
        if self._has_links and (record.supersedes or record.superseded_by):
            supersedes = ",".join(sorted(origins.get(id, id) for id in record.supersedes)).encode()
            superseded_by = origins.get(record.superseded_by or "", record.superseded_by or "").encode()
        updated = record.updated_at.timestamp() if record.updated_at else None
        moments = f"{record.created_at.timestamp():f} {updated}".encode()
        history = None
        if stored.handovers is not None:
            begins = stored.begins if record.supersedes else None
            history = repr([begins, *stored.handovers]).encode() if begins or stored.handovers else b""
        return Marks(self.own(record), supersedes, superseded_by, moments, history)

    def different(self, one: MemoryRecord, other: MemoryRecord, origins: Mapping[str, str]) -> list[str]:
        """Return the names of the fields in which a record of the source differs from that of the target."""
        here, there = self._fields(one, {}), self._fields(other, origins)
        links = _LINKS if self._has_links else ()
        names = (*self._own, "extensions", *links, *(_MOMENTS if self.origins.id_of(other) == other.id else ()))
        return [name for name in names if (here.get(name) or None) != (there.get(name) or None)]

    def _fields(self, record: MemoryRecord, origins: Mapping[str, str]) -> dict[str, Any]:
        wire = record.to_wire()
        wire["extensions"] = self.origins.extensions_of(record)
        wire["supersedes"] = sorted(origins.get(id, id) for id in record.supersedes)
        wire["superseded_by"] = origins.get(record.superseded_by or "", record.superseded_by)
        return wire


def _digest(value: Any) -> bytes:
    return blake2b(_encode(value).encode(errors="surrogatepass"), digest_size=16).digest()
