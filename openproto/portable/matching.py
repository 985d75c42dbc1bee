"""Whether two stores have the same: which record was made of which, and in what fields the two differ.

A record is known by its id, or where it could not keep that by its origin.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from openproto import MemoryRecord
from openproto.models import Origins

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

    def says_the_same(self, other: Marks, *, anew: bool) -> bool:
        """Say whether nothing differs; a record that was added `anew` has other moments."""
        return self[:-1] == other[:-1] and (anew or self.moments == other.moments)


class Matching:
    """Compares the records of a target with those of a source, which is named by its provider.

    Fields that the target has no place for, `unkept`, are left out.
    """

    def __init__(self, source: str, unkept: Collection[str] = ()) -> None:
        self.origins = Origins(source)
        self._own = [name for name in _OWN if name not in unkept]  # and the extensions
        self._has_links = "supersedes" not in unkept

    def marks(self, record: MemoryRecord, origins: Mapping[str, str]) -> Marks:
        """Return the record's digests; `origins` has the source's ids of the target's records that have others."""
        # Making the JSON form of a whole record takes longer than all else here.
        wire = record.to_wire() if record.source or record.valid_from or record.valid_to else vars(record)
        extensions = self.origins.extensions_of(record) if record.model_extra else None
        own = _digest([*(wire.get(name) or None for name in self._own), extensions or None])
        supersedes = superseded_by = b""
        if self._has_links and (record.supersedes or record.superseded_by):
            supersedes = ",".join(sorted(origins.get(id, id) for id in record.supersedes)).encode()
            superseded_by = origins.get(record.superseded_by or "", record.superseded_by or "").encode()
        updated = record.updated_at.timestamp() if record.updated_at else None
        return Marks(own, supersedes, superseded_by, f"{record.created_at.timestamp():f} {updated}".encode())

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
