"""A memory as a vendor keeps it: its text, and everything else in one JSON string among the vendor's metadata.

One string, because vendors agree on nothing richer: some refuse nested values, some drop nulls, some turn numbers into
text. What a vendor must filter by is written beside it, in keys of the adapter's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from secrets import token_hex
from typing import Any, Self, TypeAlias

from pydantic import JsonValue, PrivateAttr, ValidationError

from openproto.emulation.answers import damaged
from openproto.models import MemoryRecord, MemorySource
from openproto.requests import MemoryInput, fingerprint
from openproto.stores.compact_json import to_json

Marks: TypeAlias = tuple[tuple[str, datetime], ...]

_NOT_KEPT = {"content", "status", "superseded_by"}


def new_version() -> str:
    """Return a version that no record has had before."""
    return token_hex(8)  # of the system: a program may seed Python's own generator


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, and what the protocol needs to know of it beyond the record."""

    record: MemoryRecord
    idempotency_key: str = ""
    fingerprint: str = ""
    """What two inputs share only when they are the same input."""
    superseded: Marks = ()
    """Which records supersede it, in the order in which they were named, and from when on."""
    holds_from: datetime | None = None
    """When it first superseded another record, before which it is not current; None where it never did."""
    handle: str = ""
    """The vendor's own name for it, where that is not the record's id."""
    origin: str = ""
    """The id that it was restored with: callers know it by that one, and the vendor by the record's."""

    @property
    def id(self) -> str:
        """The id that callers know it by."""
        return self.origin or self.record.id

    @property
    def shown(self) -> MemoryRecord:
        """The record as callers see it."""
        return self.record.model_copy(update={"id": self.origin}) if self.origin else self.record

    @classmethod
    def new(cls, item: MemoryInput, key: str, *, id: str, created_at: datetime | None = None) -> Stored:
        """Return the memory that `item` asks for; the adapter may give it another id when the vendor has made one."""
        if isinstance(item, RestoredInput):
            return replace(item.stored.changed(id=id), idempotency_key=key)
        fields = item.model_dump(exclude={"content", "user_id"}, exclude_unset=True)
        record = MemoryRecord(
            id=id,
            content=item.content,
            user_id=item.user_id,
            created_at=created_at or datetime.now(UTC),
            status="done",
            version=new_version(),
            **fields,
        )
        # A successor without `valid_from` holds from the write that named its predecessors.
        holds_from = record.created_at if item.supersedes and item.valid_from is None else None
        return cls(record, key, fingerprint_of(item), holds_from=holds_from)

    @classmethod
    def foreign(cls, *, handle: str = "", **fields: Any) -> Self:
        """Return a memory that another program wrote; its version is a digest of what the vendor says of it."""
        record = MemoryRecord.model_validate({"status": "done", **fields})
        version = _digest(record.model_dump_json(exclude={"status"}))
        return cls(record.model_copy(update={"version": version}), handle=handle)

    def to_text(self) -> str:
        """Return everything but the content, as JSON for the vendor's metadata."""
        kept = self.record.model_dump(mode="json", exclude=_NOT_KEPT)
        superseded = [[by, since.isoformat()] for by, since in self.superseded]
        envelope: dict[str, Any] = {
            "record": kept,
            "key": self.idempotency_key,
            "fingerprint": self.fingerprint,
            "superseded": superseded,
        }
        if self.holds_from is not None:
            envelope["holds_from"] = self.holds_from.isoformat()
        if self.origin:
            envelope["origin"] = self.origin
        return to_json(envelope)

    @classmethod
    def from_text(cls, text: Any, content: Any, *, handle: str = "", **fields: Any) -> Self:
        """Return the memory that `to_text` wrote; `fields` are the record's as the vendor knows them better.

        Raises ProviderError where this is nothing that `to_text` writes.
        """
        try:
            envelope = json.loads(text)
            superseded = tuple((str(by), datetime.fromisoformat(since)) for by, since in envelope["superseded"])
            marks = {"superseded_by": superseded[-1][0] if superseded else None, "status": "done"}
            if "version" not in envelope["record"]:  # written before there were versions
                marks["version"] = _digest(text)
            record = MemoryRecord.model_validate({**envelope["record"], **marks, "content": content, **fields})
            holds_from = datetime.fromisoformat(envelope["holds_from"]) if "holds_from" in envelope else None
            origin = str(envelope.get("origin", ""))
            return cls(record, envelope["key"], envelope["fingerprint"], superseded, holds_from, handle, origin)
        except (ValidationError, LookupError, TypeError, ValueError, RecursionError):
            # Not chained: the error of a model repeats its input, which is memory content.
            raise damaged() from None

    def changed(self, **fields: Any) -> Self:
        """Return this with those fields of the record changed."""
        if (source := fields.get("source")) is not None:
            fields["source"] = MemorySource(**source.model_dump())
        return replace(self, record=self.record.model_copy(update=fields))

    def extended(self, extensions: Mapping[str, JsonValue]) -> Self:
        """Return this with those extensions changed; None removes one."""
        if not extensions:
            return self
        kept = self.record.model_dump(exclude={*extensions})
        wanted = {name: value for name, value in extensions.items() if value is not None}
        return replace(self, record=MemoryRecord.model_validate({**kept, **wanted}))

    def superseded_by(self, id: str, since: datetime) -> Self:
        """Return this as superseded by `id` too."""
        return self.marked((*self._without(id), (id, since)))

    def released_by(self, id: str) -> Self:
        """Return this as no longer superseded by `id`."""
        return self.marked(self._without(id))

    @property
    def superseded_at(self) -> datetime | None:
        """When it stops being current because another record supersedes it: the earliest of all handovers."""
        return min((since for _, since in self.superseded), default=None)

    def _without(self, id: str) -> Marks:
        return tuple((by, since) for by, since in self.superseded if by != id)

    def marked(self, marks: Marks) -> Self:
        """Return this with those marks in place of its own."""
        by = marks[-1][0] if marks else None
        return replace(self.changed(superseded_by=by, version=new_version()), superseded=marks)


class RestoredInput(MemoryInput):
    """The input of a memory that is written as it was, under whatever id the vendor gives it."""

    _stored: Stored = PrivateAttr()

    @classmethod
    def of(cls, item: MemoryInput, stored: Stored) -> Self:
        """Return the input; `item` is what `stored` would have been made of."""
        made = cls.model_construct(item.model_fields_set, **dict(item))
        made._stored = stored
        return made

    @property
    def stored(self) -> Stored:
        """The memory that `Stored.new` makes of it."""
        return self._stored


def fingerprint_of(item: MemoryInput) -> str:
    """Return what the inputs of two memories share only where the memories are the same."""
    return item.stored.fingerprint if isinstance(item, RestoredInput) else fingerprint(item).hex()


def owner_in(text: str) -> str:
    """Return the user whose memory `Stored.to_text` wrote; ProviderError where this is nothing that it writes."""
    return Stored.from_text(text, "").record.user_id


def made_at(item: MemoryInput) -> datetime | None:
    """Return when the memory was made, where it is one that is restored."""
    return item.stored.record.created_at if isinstance(item, RestoredInput) else None


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()
