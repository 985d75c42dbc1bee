"""What an audit log must hold: each write once, each read at least once, newest first, nothing of other users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from openproto.models import AuditEntry

WRITES = ("add", "update", "delete")


class Deed(NamedTuple):
    """Something that was done, as an entry must name it."""

    action: str
    user_id: str
    memory_id: str | None = None
    scope: str | None = None
    app: str | None = None
    """The one that the input of a write names."""
    call: int = 0
    """Which call it was part of: what one call did to several records has no order."""


def audit_faults(
    entries: Sequence[AuditEntry],
    done: Sequence[Deed],
    skips: Sequence[Deed],
    *,
    user_id: str,
    memory_id: str | None,
    limit: int,
    in_order: bool,
) -> list[str]:
    """Return what is wrong with the entries of a user, of one memory or of all; `done` is oldest first.

    Of writes at once nobody knows the order: without `in_order` only their number is compared, and so it is where
    `skips` may stand between them.
    """
    faults = [f"{len(entries)} entries for a limit of {limit}"] if len(entries) > limit else []
    moments = [entry.timestamp for entry in entries]
    if moments != sorted(moments, reverse=True):
        faults.append("the entries are not in order, newest first")
    faults += [f"an entry of another user: {entry.action}" for entry in entries if entry.user_id != user_id]
    if memory_id is not None:
        faults += [f"an entry of another memory: {entry.action}" for entry in entries if entry.memory_id != memory_id]
    due = [deed for deed in reversed(done) if deed.user_id == user_id and memory_id in (None, deed.memory_id)]
    written = [deed for deed in due if deed.action in WRITES]
    writes = [(deed.action, deed.memory_id) for deed in written]
    recorded = [(entry.action, entry.memory_id) for entry in entries if entry.action in WRITES]
    told = {(deed.action, deed.memory_id, deed.scope, deed.app) for deed in (*written, *skips)}
    # What wrote nothing is recorded as a read is: by the id of what it found.
    bare = (*(deed for deed in written if deed.action == "delete"), *skips)
    told |= {(deed.action, deed.memory_id, None, None) for deed in bare}
    for entry in entries:
        if entry.action in WRITES and (entry.action, entry.memory_id, entry.scope, entry.app) not in told:
            faults.append(f"{entry.action}: its scope {entry.scope!r} or app {entry.app!r} is not the memory's")
    may = Counter((deed.action, deed.memory_id) for deed in skips if deed.user_id == user_id)
    wrong: object = Counter(recorded) - Counter(writes) - may
    if in_order and not may:
        wrong = wrong or not _is_in_order(recorded, written)
    if len(entries) < limit:
        wrong = wrong or Counter(writes) - Counter(recorded)
        reads = {(deed.action, deed.memory_id, deed.scope) for deed in due if deed.action not in WRITES}
        read = {(entry.action, entry.memory_id, entry.scope) for entry in entries}
        if any(entry.action == "get" for entry in entries):  # where reads are recorded at all
            faults += [f"no entry of a read: {deed}" for deed in sorted(reads - read, key=repr)]
    if wrong:
        faults.append(f"the writes: wanted {writes[:limit]}, got {recorded}")
    return faults


def _is_in_order(recorded: Sequence[tuple[str, str | None]], due: Sequence[Deed]) -> bool:
    start = 0
    for _, deeds in groupby(due, lambda deed: deed.call):
        of_one_call = Counter((deed.action, deed.memory_id) for deed in deeds)
        end = start + of_one_call.total()
        if Counter(recorded[start:end]) - of_one_call:
            return False
        start = end
    return True
