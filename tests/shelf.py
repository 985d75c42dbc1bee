"""A provider that keeps memories in a dictionary and has every operation but `audit` and snapshots."""

from __future__ import annotations

from dict_vendor import DictVendor

from openproto.emulation import Stored
from openproto.models import MemoryRecord
from openproto.provider import Provider


class Shelf(DictVendor):
    """The vendor that is a dictionary, with one of its own."""

    name = "shelf"
    snapshot = Provider.snapshot
    load = Provider.load

    def __init__(self) -> None:
        super().__init__({})

    @property
    def records(self) -> dict[str, MemoryRecord]:
        """Return what is kept, without versions, which are new where a record is restored."""
        kept = [Stored.from_text(row.metadata, row.text) for row in self.rows.values()]
        return {stored.id: stored.shown.model_copy(update={"version": None}) for stored in kept}
