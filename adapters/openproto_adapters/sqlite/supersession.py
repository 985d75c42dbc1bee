"""Supersession in the file: each record keeps to whom it was handed over, and when.

Who is superseded knows every successor and each handover's moment, of which the earliest counts; so deleting a
successor changes nothing, and a successor that releases a record takes back its own handover alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from openproto.errors import NotFoundError
from openproto.stores.compact_json import to_json
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.selection import check_owner

Handovers: TypeAlias = list[tuple[str, int]]
"""The id of each successor and the moment of its handover, in the order in which they named the record."""

HANDOVERS = "SELECT user_id, handovers FROM memories WHERE id = :id AND user_id = :user_id"

HAND_OVER = """UPDATE main.memories SET handovers = :handovers, superseded_by = :by, superseded_at = :moment,
        version = lower(hex(randomblob(8)))
    WHERE id = :id AND user_id = :user_id RETURNING user_id"""


def handovers_of(db: Connection, id: str, user_id: str) -> Handovers:
    """Return the handovers of the user's record, or raise NotFoundError."""
    row = db.execute(HANDOVERS, {"id": id, "user_id": user_id}).fetchone()
    if row is None:
        raise NotFoundError("supersedes: no such memory")
    check_owner(row[0], user_id)
    return [(by, moment) for by, moment in json.loads(row[1])]


def set_handovers(db: Connection, id: str, user_id: str, handovers: Handovers) -> None:
    """Let the record be superseded by these, and by none where the list is empty."""
    changed = db.execute(
        HAND_OVER,
        {
            "id": id,
            "user_id": user_id,
            "handovers": to_json(handovers),
            "by": handovers[-1][0] if handovers else None,
            "moment": min((moment for _, moment in handovers), default=None),
        },
    )
    for (owner,) in changed.fetchall():
        check_owner(owner, user_id)


def supersede(db: Connection, id: str, user_id: str, old_ids: Sequence[str], moment: int) -> None:
    """Hand `old_ids` over to `id`; NotFoundError, before any change, where one is not the user's."""
    before = [(old_id, handovers_of(db, old_id, user_id)) for old_id in old_ids]
    for old_id, handovers in before:
        if id not in (by for by, _ in handovers):
            set_handovers(db, old_id, user_id, [*handovers, (id, moment)])


def release(db: Connection, id: str, user_id: str, old_ids: Iterable[str]) -> None:
    """Take back the handover of those of `old_ids` that still exist to `id`."""
    for old_id in old_ids:
        try:
            handovers = handovers_of(db, old_id, user_id)
        except NotFoundError:
            continue
        left = [(by, moment) for by, moment in handovers if by != id]
        if left != handovers:
            set_handovers(db, old_id, user_id, left)
