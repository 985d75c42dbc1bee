"""What a search looks at of one user's memories, as NumPy arrays that stay in memory between searches.

They are never stale. Every search asks the file, in its own snapshot, for what has changed of the user since (the
table `changes`, which every write of any process adds to), and reads those rows anew.
"""

from __future__ import annotations

import json
import sqlite3
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openproto.embedding import Vector
from openproto.models import MOST_TURNS
from openproto.requests import Filters
from openproto.stores.ranking import CENTERING_HALF_LIFE, CENTERING_SAMPLE
from openproto.stores.ranking_arrays import Flags, Positions, Turns, cosines
from openproto_adapters.sqlite.lanes import Connection
from openproto_adapters.sqlite.records import to_micros
from openproto_adapters.sqlite.selection import CONVERSATION, TURN, check_owner

Halves: TypeAlias = NDArray[np.float16]
Singles: TypeAlias = NDArray[np.float32]

_ALWAYS, _NEVER = -(1 << 63), (1 << 63) - 1
READ = f"""SELECT user_id, number, coalesce(valid_from, {_ALWAYS}),
        min(coalesce(valid_to, {_NEVER}), coalesce(superseded_at, {_NEVER})), scope, tags, {CONVERSATION}, {TURN},
        {{embedding}}
    FROM memories"""
ALL = f"{READ} WHERE user_id = :user_id"
NUMBERED = f"{READ} WHERE number = :number AND user_id = :user_id"
NUMBERS = "SELECT group_concat(number) FROM memories WHERE user_id = :user_id"
VECTORS = "SELECT user_id, number, embedding FROM memories WHERE user_id = :user_id AND embedding IS NOT NULL"
COUNT = "SELECT count(*) FROM memories WHERE user_id = :user_id"
LATEST = """SELECT (SELECT max(seq) FROM changes WHERE user_id = :user_id),
    (SELECT min(seq) FROM changes WHERE user_id = :user_id)"""
CHANGED = "SELECT group_concat(number) FROM changes WHERE user_id = :user_id AND seq > :seen"
RECENT = """SELECT embedding FROM memories WHERE user_id = :user_id AND embedding IS NOT NULL
    ORDER BY created_at DESC, id DESC LIMIT :most"""

_ROWS_AT_ONCE = 512
_ROW = np.dtype(
    {
        "names": ["begins", "ends", "kind", "conversation", "turn", "exists", "has_vector"],
        "formats": ["i8", "i8", "i4", "i4", "i4", "?", "?"],
    }
)
_ROOM = 1.125
"""How much larger the arrays are made when they are too small."""


class UserRows:
    """The columns of one user's memories, in the order of their numbers; what was deleted leaves a gap.

    Vectors are kept in half precision, as they are in the file, or read again by every search.
    """

    def __init__(self, user_id: str, dim: int, *, keeps_vectors: bool) -> None:
        self.user_id = user_id
        self.count = 0
        """How many memories the user has."""
        self.bytes = 0
        """How many bytes are kept, about."""
        self.numbers: Positions = np.zeros(0, np.int64)
        self.rows: NDArray[Any] = np.zeros(0, _ROW)
        """The columns: `has_vector`, and others."""
        self.turns = Turns(self.rows["conversation"], self.rows["turn"])
        self._dim = dim
        self._keeps_vectors = keeps_vectors
        self._room: NDArray[Any] = self.rows
        self._vectors: Halves = np.zeros((0, dim), np.float16)
        self._seen = 0
        self._kinds: dict[tuple[str | None, str], int] = {}
        self._conversations: dict[str, int] = {}
        self._mean: Singles | None = None
        self._mean_of = 0

    def refresh(self, db: Connection) -> None:
        """Take in what changed since the last time; everything, where that is more than the file remembers."""
        latest, oldest = (seq or 0 for seq in db.execute(LATEST, {"user_id": self.user_id}).fetchone())
        if latest == self._seen and len(self.rows):
            return
        is_known = len(self.rows) and oldest - 1 <= self._seen <= latest
        if not (is_known and self._take_in(db, numbers(db, CHANGED, {"user_id": self.user_id, "seen": self._seen}))):
            self._read_all(db)
        self._seen = latest
        self.count = int(np.count_nonzero(self.rows["exists"]))
        if self.count < len(self.rows) // 2:
            self._read_all(db)
        self.turns = Turns(self.rows["conversation"], self.rows["turn"])
        recent = [blob for (blob,) in db.execute(RECENT, {"user_id": self.user_id, "most": CENTERING_SAMPLE})]
        self._mean_of = len(recent)
        self._mean = self._matrix(recent).astype(np.float32).mean(axis=0) if recent else None
        texts = sum(200 + len(tags) for _, tags in self._kinds) + 150 * len(self._conversations)
        arrays = (self.numbers, self._room, self._vectors, self.turns)
        self.bytes = 2_000 + sum(array.nbytes for array in arrays) + texts

    def eligible(self, filters: Filters, as_of: datetime) -> Flags:
        """Return which memories the filters select and are current at that moment."""
        rows, moment = self.rows, to_micros(as_of)
        found: Flags = rows["exists"] & (rows["begins"] <= moment) & (rows["ends"] > moment)
        if filters.scope is not None or filters.tags:
            kinds = np.fromiter((_selects(filters, scope, tags) for scope, tags in self._kinds), bool)
            found &= kinds[rows["kind"]]
        return found

    def positions(self, wanted: Positions) -> Positions:
        """Return where the memories of these numbers, which are in order, stand; without those that are not there."""
        kept = self.numbers
        at = np.searchsorted(kept, wanted)
        inside = at < len(kept)
        at, wanted = at[inside], wanted[inside]
        known: Positions = at[kept[at] == wanted]
        return known

    def each_positions(self, texts: Sequence[str]) -> list[Positions]:
        """Return what `positions` does for each of several lists of numbers, which come as texts."""
        sizes = [text.count(",") + 1 if text else 0 for text in texts]
        wanted = _parsed(",".join(filter(None, texts)))
        kept = self.numbers
        if not len(kept):
            return [wanted[:0] for _ in texts]
        at = np.minimum(np.searchsorted(kept, wanted), len(kept) - 1)
        known = kept[at] == wanted
        ends = [*accumulate(sizes)]
        return [at[end - size : end][known[end - size : end]] for size, end in zip(sizes, ends, strict=True)]

    def centred(self, query: Vector) -> Vector:
        """Return the query moved away from what the user's newest memories have in common."""
        if self._mean is None:
            return query
        share = np.float32(self._mean_of / (self._mean_of + CENTERING_HALF_LIFE))
        moved = query - self._mean * share
        moved = moved / (np.linalg.norm(moved) or 1.0)
        return moved.astype(np.float16).astype(np.float32)

    def cosines(self, db: Connection, query: Vector) -> Singles:
        """Return the cosine of every vector with the query, and something where there is none."""
        if self._keeps_vectors:
            return cosines(self._vectors[: len(self.rows)], query)
        found = np.zeros(len(self.rows), np.float32)
        for owners, wanted, blobs in _columns(db.execute(VECTORS, {"user_id": self.user_id})):
            self._check_owners(owners)
            found[np.searchsorted(self.numbers, wanted)] = cosines(self._matrix(blobs), query)
        return found

    def _read_all(self, db: Connection) -> None:
        wanted = {"user_id": self.user_id}
        self.numbers = np.sort(numbers(db, NUMBERS, wanted))
        self._kinds, self._conversations = {}, {}
        self.rows, self._room, self._vectors = np.zeros(0, _ROW), np.zeros(0, _ROW), np.zeros((0, self._dim), "f2")
        self._make_room(len(self.numbers))
        for columns in _columns(db.execute(ALL.format(embedding=self._embedding), wanted)):
            self._put(np.searchsorted(self.numbers, columns[1]), columns)

    def _take_in(self, db: Connection, changed: Positions) -> bool:
        """Read these memories anew; False where one stands between others that has no place there."""
        last = self.numbers[-1]
        changed = np.unique(changed)
        new = changed[changed > last]
        if len(self.positions(changed)) + len(new) < len(changed):
            return False
        start = len(self.rows)
        self._make_room(start + len(new))
        self.numbers = np.concatenate([self.numbers, new])
        at = np.searchsorted(self.numbers, changed)
        self.rows["exists"][at] = False
        one = NUMBERED.format(embedding=self._embedding)
        found = (db.execute(one, {"user_id": self.user_id, "number": n}).fetchone() for n in changed.tolist())
        rows = [row for row in found if row is not None]
        if rows:
            columns = [*zip(*rows, strict=True)]
            self._put(np.searchsorted(self.numbers, columns[1]), columns)
        return True

    def _put(self, at: Positions, columns: Sequence[Sequence[Any]]) -> None:
        """Write rows, given as the columns of `READ`, to their positions."""
        owners, _, begins, ends, scopes, tags, talks, turns, embeddings = columns
        self._check_owners(owners)
        kinds, conversations = self._kinds, self._conversations
        is_turn = [
            talk is not None and turn is not None and 0 <= turn < MOST_TURNS
            for talk, turn in zip(talks, turns, strict=True)
        ]
        rows = self.rows
        rows["begins"][at], rows["ends"][at] = begins, ends
        rows["kind"][at] = [kinds.setdefault(kind, len(kinds)) for kind in zip(scopes, tags, strict=True)]
        rows["conversation"][at] = [
            conversations.setdefault(talk, len(conversations)) if told else -1
            for talk, told in zip(talks, is_turn, strict=True)
        ]
        rows["turn"][at] = [turn if told else 0 for turn, told in zip(turns, is_turn, strict=True)]
        rows["exists"][at] = True
        has_vector = np.array([bool(blob) for blob in embeddings])
        rows["has_vector"][at] = has_vector
        if self._keeps_vectors:
            self._vectors[at[has_vector]] = self._matrix([blob for blob in embeddings if blob])

    def _make_room(self, size: int) -> None:
        if size > len(self._room):
            room = int(size * _ROOM) if len(self._room) else size
            self._room = np.concatenate([self._room, np.zeros(room - len(self._room), _ROW)])
            if self._keeps_vectors:
                more = np.zeros((room - len(self._vectors), self._dim), np.float16)
                self._vectors = np.concatenate([self._vectors, more])
        self.rows = self._room[:size]

    @property
    def _embedding(self) -> str:
        return "embedding" if self._keeps_vectors else "embedding IS NOT NULL"

    def _matrix(self, blobs: Sequence[bytes]) -> Halves:
        return np.frombuffer(b"".join(blobs), "<f2").reshape(len(blobs), self._dim)

    def _check_owners(self, owners: Sequence[str]) -> None:
        for owner in set(owners):
            check_owner(owner, self.user_id)


class SearchCache:
    """The rows of the users that were searched for last, at most `limit` bytes of them; not to be shared by threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = 0
        self._users: OrderedDict[tuple[str, str | None, int], UserRows] = OrderedDict()

    def rows(self, db: Connection, user_id: str, model: str | None, dim: int) -> UserRows:
        """Return the user's rows as they are in the snapshot of `db`, which holds vectors of that model."""
        key = (user_id, model, dim)
        rows = self._users.pop(key, None)  # and what fails half way is not put back
        if rows is None:
            (count,) = db.execute(COUNT, {"user_id": user_id}).fetchone()
            rows = UserRows(user_id, dim, keeps_vectors=count * (8 + _ROW.itemsize + 2 * dim) <= self._limit)
        else:
            self._kept -= rows.bytes
        rows.refresh(db)
        if rows.bytes <= self._limit:
            self._users[key] = rows
            self._kept += rows.bytes
            while self._kept > self._limit:
                self._kept -= self._users.popitem(last=False)[1].bytes
        return rows


def numbers(db: Connection, statement: str, parameters: dict[str, Any]) -> Positions:
    """Return the numbers that the statement puts into one text, which is faster than a row for each."""
    (text,) = db.execute(statement, parameters).fetchone()
    return _parsed(text or "")


def _parsed(text: str) -> Positions:
    return np.fromstring(text, np.int64, sep=",")


def _columns(cursor: sqlite3.Cursor) -> Iterator[Sequence[Sequence[Any]]]:
    """Yield what the cursor finds, some hundred rows at a time, as columns."""
    while rows := cursor.fetchmany(_ROWS_AT_ONCE):
        yield [*zip(*rows, strict=True)]


def _selects(filters: Filters, scope: str | None, tags: str) -> bool:
    wanted = filters.scope
    within = wanted is None or (scope is not None and (scope == wanted or scope.startswith(f"{wanted}/")))
    return within and (not filters.tags or set(filters.tags) <= set(json.loads(tags)))
