"""Supersession: at one moment the newer record takes over from the older one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime

from openproto.models import MemoryRecord


@dataclass(frozen=True)
class Handover:
    """`new` takes over from `old` at `moment`; it is `open_ended` where `new` says nothing of when it begins."""

    old: str
    new: str
    moment: datetime
    open_ended: bool


class Handovers:
    """All handovers of a store, in the order in which they were written; deleting either record undoes none."""

    def __init__(self) -> None:
        self._written: list[Handover] = []

    def write(self, old: str, new: str, valid_from: datetime | None, now: datetime) -> None:
        """`new` takes over from `old`: when it becomes valid, or at once where it does not say."""
        self._written.append(Handover(old, new, valid_from or now, valid_from is None))

    def release(self, new: str) -> list[str]:
        """Forget what `new` took over, as `update(supersedes=None)` asks, and return whom it gives back."""
        released = [handover.old for handover in self._written if handover.new == new]
        self._written = [handover for handover in self._written if handover.new != new]
        return released

    def successor(self, old: str) -> str | None:
        """Return the newest record that took over from `old`: its `superseded_by`."""
        return next((handover.new for handover in reversed(self._written) if handover.old == old), None)

    def stand_in(self, record: MemoryRecord, there: Container[str]) -> bool:
        """Whether a record as it is shown says all that is known: a successor that is not `there` keeps its moment."""
        taken = {handover.old for handover in self._written if handover.new == record.id}
        given = [handover for handover in self._written if handover.old == record.id]
        told = all(handover.new == record.superseded_by for handover in given) and len(given) <= 1
        dated = all(handover.open_ended or handover.new in there for handover in given)
        return set(record.supersedes) == taken and told and dated and bool(given) == (record.superseded_by is not None)

    def ended(self, old: str) -> datetime | None:
        """Return when `old` ceased to be current: of several handovers, the earliest counts."""
        return min((handover.moment for handover in self._written if handover.old == old), default=None)

    def dated(self) -> list[tuple[str, datetime]]:
        """Return who was handed over at a moment that its successor named, and when: whoever was most often, first."""
        often = Counter(handover.old for handover in self._written)
        dated = [(handover.old, handover.moment) for handover in self._written if not handover.open_ended]
        return sorted(dated, key=lambda each: (often[each[0]], each[1]), reverse=True)

    def moments(self) -> list[tuple[str, datetime]]:
        """Return who was handed over, and when, the latest first."""
        return [(handover.old, handover.moment) for handover in reversed(self._written)]

    def begun(self, new: str) -> datetime | None:
        """Return when a successor without `valid_from` begins to be current: with what it wrote first."""
        moments = (handover.moment for handover in self._written if handover.new == new and handover.open_ended)
        return min(moments, default=None)
