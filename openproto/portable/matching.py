"""Whether two stores have the same: which record was made of which, and in what fields the two differ.

A record is known by its id, or where it could not keep that by its origin.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from operator import itemgetter
from typing import Any, NamedTuple

from openproto import MemoryRecord
from openproto.models import Origins, StoredRecord

_OWN = ("content", "scope", "tags", "source", "confidence", "valid_from", "valid_to", "key")
_LINKS = ("supersedes", "superseded_by")
_MOMENTS = ("created_at", "updated_at")
"""All that is compared; `embedding_model`, `status`, and `version` are each store's own."""


_VALIDITY = ("valid_from", "valid_to")
_LONGEST_HELD = 200  # characters

_encode = json.JSONEncoder(sort_keys=True).encode


class Marks(NamedTuple):
    """What records are compared by; a long text is held as its digest."""

    own: tuple[Any, ...]
    """What only a change of the record itself changes, but for what it supersedes."""
    supersedes: Sequence[str]
    superseded_by: str | None
    moments: tuple[datetime, datetime | None]
    history: Any
    """The moments of supersession; None where they are not known."""

    def says_the_same(self, other: Marks, *, anew: bool) -> bool:
        """Say whether nothing differs; a record that was added `anew` has other moments."""
        return self[:3] == other[:3] and (anew or (self.moments == other.moments and self.has_history_of(other)))

    def has_history_of(self, other: Marks) -> bool:
        """Say whether the moments of supersession are the same, as far as both are known."""
        return None in (self.history, other.history) or self.history == other.history

    def successors(self) -> set[str]:
        """Return the ids of those that took over from the record, as far as they are known."""
        handovers = self.history[1] if self.history is not None else ()
        return {id for id in (self.superseded_by, *(id for id, _ in handovers)) if id is not None}


class Matching:
    """Compares the records of a target with those of a source, which is named by its provider.

    Fields that the target has no place for, `unkept`, are left out.
    """

    def __init__(self, source: str, unkept: Collection[str] = ()) -> None:
        self.origins = Origins(source)
        self._own = [name for name in _OWN if name not in unkept]  # and the extensions
        self._taken: Callable[[Mapping[str, Any]], tuple[Any, ...]] = itemgetter(*self._own)
        self._has_links = "supersedes" not in unkept

    def own(self, record: MemoryRecord) -> bytes:
        """Return the digest that a journal keeps of what only a change of the record itself changes."""
        fields = vars(record)
        if record.source or record.valid_from or record.valid_to:
            spelled = {name: _spelled(moment) for name in _VALIDITY if (moment := fields[name]) is not None}
            fields = {**fields, **spelled, "source": record.source and record.source.to_wire()}
        extensions = self.origins.extensions_of(record) if record.model_extra else None
        return _digest([*[fields[name] or None for name in self._own], extensions or None])

    def marks(self, stored: StoredRecord, origins: Mapping[str, str]) -> Marks:
        """Return what the record is compared by; `origins` has the source's ids of what has others at the target."""
        record = stored.record
        fields = vars(record)
        if record.source is not None or record.confidence == 0:  # what says nothing may come back as what is absent
            source = (*vars(record.source).values(), record.source.model_extra or None) if record.source else ()
            says = any(value is not None for value in source)
            fields = {**fields, "source": source if says else None, "confidence": record.confidence or None}
        own = self._taken(fields)
        if len(record.content) > _LONGEST_HELD:
            own = (_digest(own[0]), *own[1:])
        if record.model_extra and (extensions := self.origins.extensions_of(record)):
            own = (*own, _encode(extensions))  # which tells 1 from 1.0 and True
        supersedes: Sequence[str] = ()
        superseded_by = None
        if self._has_links and (record.supersedes or record.superseded_by):
            supersedes = sorted(origins.get(id, id) for id in record.supersedes)
            superseded_by = origins.get(record.superseded_by or "", record.superseded_by)
        history = None
        if stored.handovers is not None:
            history = (stored.begins if supersedes else None, stored.handovers)
        return Marks(own, supersedes, superseded_by, (record.created_at, record.updated_at), history)

    def different(self, one: MemoryRecord, other: MemoryRecord, origins: Mapping[str, str]) -> list[str]:
        """Return the names of the fields in which a record of the source differs from that of the target."""
        here, there = self._fields(one, {}), self._fields(other, origins)
        links = _LINKS if self._has_links else ()
        names = (*self._own, "extensions", *links, *(_MOMENTS if self.origins.id_of(other) == other.id else ()))
        return [name for name in names if _encode(here.get(name) or None) != _encode(there.get(name) or None)]

    def _fields(self, record: MemoryRecord, origins: Mapping[str, str]) -> dict[str, Any]:
        wire = record.to_wire()
        wire["extensions"] = self.origins.extensions_of(record)
        wire["supersedes"] = sorted(origins.get(id, id) for id in record.supersedes)
        wire["superseded_by"] = origins.get(record.superseded_by or "", record.superseded_by)
        return wire


def _spelled(moment: datetime) -> str:
    """Return what the record's JSON form says; making that of the whole record takes longer than all else here."""
    return moment.isoformat().replace("+00:00", "Z")


def _digest(value: Any) -> bytes:
    return blake2b(_encode(value).encode(errors="surrogatepass"), digest_size=16).digest()
