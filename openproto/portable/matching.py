"""Whether two stores have the same: which record was made of which, and in what fields the two differ.

A record is known by its id. One that could not keep its id names it in the extension `x-migrated`, with the provider
that it came from.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

from openproto import MemoryRecord

MIGRATED = "x-migrated"

_OWN = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key", "extensions")
_LINKS = ("supersedes", "superseded_by")
_MOMENTS = ("created_at", "updated_at")
"""All that is compared; `embedding_model`, `status`, and `version` are each store's own."""


class Marks(NamedTuple):
    """Digests by which records are compared without being held."""

    own: bytes
    """Of what only a change of the record itself changes, but for what it supersedes."""
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
        self._source = source
        self._own = [name for name in _OWN if name not in unkept]
        self._links = _LINKS if "supersedes" not in unkept else ()

    def origin_of(self, record: MemoryRecord) -> str:
        """Return the id that a record of the target has at the source."""
        made_of = self._made_of(record)
        return str(made_of["id"]) if made_of is not None else record.id

    def made_of(self, record: MemoryRecord) -> dict[str, Any]:
        """Return what `x-migrated` says of a record of the source that gets another id at the target."""
        kept = {name: value for name, value in record.to_wire().items() if name in ("id", "created_at", "updated_at")}
        earlier = record.extensions.get(MIGRATED)
        return {"from": self._source, **kept, **({} if earlier is None else {"earlier": earlier})}

    def marks(self, record: MemoryRecord, origins: Mapping[str, str]) -> Marks:
        """Return the record's digests; `origins` has the source's ids of the target's records that have others."""
        fields = self._fields(record, origins)
        parts = (self._own, self._links[:1], self._links[1:], _MOMENTS)
        return Marks(*(_digest([fields.get(name) or None for name in names]) for names in parts))

    def different(self, one: MemoryRecord, other: MemoryRecord, origins: Mapping[str, str]) -> list[str]:
        """Return the names of the fields in which a record of the source differs from that of the target."""
        here, there = self._fields(one, {}), self._fields(other, origins)
        names = (*self._own, *self._links, *(_MOMENTS if self.origin_of(other) == other.id else ()))
        return [name for name in names if (here.get(name) or None) != (there.get(name) or None)]

    def _fields(self, record: MemoryRecord, origins: Mapping[str, str]) -> dict[str, Any]:
        wire = record.to_wire()
        extensions = dict(record.extensions)
        made_of = self._made_of(record)
        if made_of is not None and (earlier := made_of.get("earlier")) is not None:
            extensions[MIGRATED] = earlier
        elif made_of is not None:
            del extensions[MIGRATED]
        wire["extensions"] = extensions
        wire["supersedes"] = sorted(origins.get(id, id) for id in record.supersedes)
        wire["superseded_by"] = origins.get(record.superseded_by or "", record.superseded_by)
        return wire

    def _made_of(self, record: MemoryRecord) -> dict[str, Any] | None:
        made_of = record.extensions.get(MIGRATED)
        if isinstance(made_of, dict) and made_of.get("from") == self._source and "id" in made_of:
            return made_of
        return None


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True)
    return blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
