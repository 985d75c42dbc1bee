"""The terms by which memories are found, and FTS5's index of them, which follows behind.

A memory's row holds its terms. To index many memories at once takes a tenth of the time that one after another does:
so a new one waits until there are hundreds of them, and a search reads the terms of those that wait from their rows.
`store.indexed` is the number of the last memory that the index has. All of it is one snapshot, like every other table.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import unpack

from openproto.errors import OpenProtoError
from openproto_adapters.sqlite.lanes import Connection

_log = logging.getLogger(__name__)

MOST_WAITING = 250
"""More memories than these are not left waiting for the index; and so many go into it in one transaction."""

LAST_NUMBERS = "SELECT max(indexed, coalesce((SELECT max(number) FROM main.memories), 0)), indexed FROM store"
POSTINGS = """SELECT (SELECT group_concat(rowid) FROM words WHERE words MATCH asked.value)
    FROM json_each(:asked) AS asked ORDER BY asked.key"""
# The sign keeps SQLite from reading all of the user's rows by the index of users.
WAITING = """SELECT number, terms FROM memories
    WHERE number > (SELECT indexed FROM store) AND +user_id = :user_id ORDER BY number"""
NEXT = "SELECT number, terms FROM memories WHERE number > (SELECT indexed FROM store) ORDER BY number LIMIT :most"

_INSERT = "INSERT INTO words (rowid, terms) VALUES (?, ?)"
_DELETE = "INSERT INTO words (words, rowid, terms) VALUES ('delete', ?, ?)"

HOLDING = """ AND (number IN (SELECT rowid FROM words WHERE words MATCH :terms)
    OR number > (SELECT indexed FROM store) AND instr(terms, :first))"""
"""The condition on rows that have all of the terms; of rows that are not indexed, those that may have."""


def own_terms(user_id: str, packed: bytes) -> bytes:
    """Mix terms, 8 bytes each, with the user's own hash.

    So one user's words stand apart from everybody else's, and a look-up reads that user's entries alone.
    """
    size = len(packed)
    return (int.from_bytes(packed) ^ int.from_bytes(_hash_of(user_id) * (size // 8))).to_bytes(size)


def spelled(terms: bytes) -> str:
    """Spell terms for FTS5, each as 16 hexadecimal digits."""
    return terms.hex(" ", 8)


def postings(db: Connection, user_id: str, terms: Sequence[int]) -> list[str]:
    """Return for each term the numbers of the user's memories that have it, in order and in one text."""
    asked = own_terms(user_id, b"".join([term.to_bytes(8) for term in terms]))
    found = [text or "" for (text,) in db.execute(POSTINGS, {"asked": json.dumps(spelled(asked).split())})]
    rows = db.execute(WAITING, {"user_id": user_id}).fetchall()
    db.unindexed = len(rows)
    if rows:
        waiting: dict[int, list[str]] = {term: [] for term in unpacked(asked)}
        for number, its in rows:
            for term in waiting.keys() & unpacked(its):
                waiting[term].append(str(number))
        found = [
            ",".join([indexed, *waiting[term]] if indexed else waiting[term])
            for indexed, term in zip(found, unpacked(asked), strict=True)
        ]
    return found


def replace(db: Connection, number: int, before: bytes, after: bytes) -> None:
    """Let the index have other terms of a memory, if it has any of it."""
    if _is_indexed(db, number):
        db.execute(_DELETE, (number, spelled(before)))
        db.execute(_INSERT, (number, spelled(after)))


def forget(db: Connection, rows: Iterable[tuple[int, bytes]]) -> None:
    """Take the terms of deleted memories out of the index."""
    db.executemany(_DELETE, [(number, spelled(terms)) for number, terms in rows if _is_indexed(db, number)])


def extend(db: Connection) -> bool:
    """Bring the memories that wait longest into the index; return whether others still wait."""
    db.act_for(None)
    rows = db.execute(NEXT, {"most": MOST_WAITING}).fetchall()
    db.executemany(_INSERT, [(number, spelled(terms)) for number, terms in rows])
    if rows:
        db.execute("UPDATE store SET indexed = ?", (rows[-1][0],))
    if len(rows) < MOST_WAITING:
        db.unindexed = 0
    return len(rows) == MOST_WAITING


class Indexing:
    """Brings the memories that wait into the index, in the background, once they are many."""

    def __init__(self, write: Callable[[Callable[[Connection], bool]], Awaitable[bool]]) -> None:
        self._write = write
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self.waiting = 0
        """How many memories the last transaction saw that wait."""

    def look(self) -> None:
        """Begin if it is time."""
        if self.waiting > MOST_WAITING and self._task is None and not self._is_closing:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="openproto-sqlite-words")

    async def close(self) -> None:
        """Stop at once: what is not indexed waits for the next client of the file."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while await self._write(extend):
                pass
        except OpenProtoError as error:
            _log.debug("sqlite: memories wait to be indexed: %s", type(error).__name__)
        finally:
            self.waiting, self._task = 0, None


def unpacked(terms: bytes) -> tuple[int, ...]:
    """Return terms as integers."""
    return unpack(f">{len(terms) // 8}Q", terms)


def _is_indexed(db: Connection, number: int) -> bool:
    (is_indexed,) = db.execute("SELECT indexed >= ? FROM store", (number,)).fetchone()
    return bool(is_indexed)


@lru_cache(maxsize=64)
def _hash_of(user_id: str) -> bytes:
    return blake2b(user_id.encode(), digest_size=8).digest()
