"""The terms by which memories are found, and FTS5's index of them, which follows behind.

To index many memories at once takes a tenth of the time that one after another does: so new ones wait until there are
hundreds of them, and a search reads the terms of those that wait one by one. Those of a batch that is large enough to
be indexed soon are made only then, and until then by each search. `store.indexed` is the number of the last memory
that the index has; all of this belongs to one snapshot of the file, as everything else in it does.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from struct import unpack

from openproto.errors import OpenProtoError
from openproto.stores.words import packed_terms
from openproto_adapters.sqlite.lanes import Connection

_log = logging.getLogger(__name__)

MOST_WAITING = 250
"""More memories than these are not left waiting for long; and so many are indexed in one transaction."""

MOST_LEFT = 2_000
"""A write that finds more memories waiting than these indexes some of them itself.

Whoever opens the file next reads the texts of what was left, in every search.
"""

_MOST_READ = 30  # of those that wait, by a search: more would take it longer than all else
_REST_SECONDS = 0.02  # so that the answer to the call that made them many is not held up

LAST_NUMBERS = "SELECT max(indexed, coalesce((SELECT max(number) FROM main.memories), 0)), indexed FROM store"
POSTINGS = """SELECT (SELECT group_concat(rowid) FROM words WHERE words MATCH asked.value)
    FROM json_each(:asked) AS asked ORDER BY asked.key"""
# The sign keeps SQLite from reading all of the user's rows by the index of users.
WAITING = """SELECT number, packed, CASE WHEN packed IS NULL THEN content END
    FROM memories LEFT JOIN terms USING (number)
    WHERE number > (SELECT indexed FROM store) AND +user_id = :user_id ORDER BY number"""
NEXT = """SELECT number, packed, user_id, content FROM main.memories LEFT JOIN terms USING (number)
    WHERE number > (SELECT indexed FROM store) ORDER BY number LIMIT :most"""
HOLDING = """(SELECT rowid AS holding FROM words WHERE words MATCH :terms
    UNION ALL SELECT number FROM main.memories LEFT JOIN terms USING (number)
        WHERE number > (SELECT indexed FROM store) AND (packed IS NULL OR instr(packed, :first)))"""
"""The numbers of the memories that have all of the terms; of those that wait, of all that may have."""

_INDEX = "INSERT INTO words (rowid, terms) VALUES (?, ?)"
_UNINDEX = "INSERT INTO words (words, rowid, terms) VALUES ('delete', ?, ?)"
_KEEP = "INSERT OR REPLACE INTO terms (number, packed) VALUES (?, ?)"


def without_words(text: str) -> None:
    """Return what the indexer is to make of a text: nothing, because its terms are made here."""


def terms_of(user_id: str, content: str) -> bytes:
    """Return the terms of a user's memory, 8 bytes each."""
    return _own(user_id, packed_terms(content))


def spelled(terms: bytes) -> str:
    """Spell terms for FTS5, each as 16 hexadecimal digits."""
    return terms.hex(" ", 8)


def new_numbers(db: Connection, count: int) -> range:
    """Return the numbers of so many memories that are about to be written, which nothing ever had."""
    last, indexed = db.execute(LAST_NUMBERS).fetchone()
    for _ in range(indexed, last - MOST_LEFT, MOST_WAITING):
        extend(db)
    db.should_index = last + count - indexed > MOST_WAITING
    return range(last + 1, last + 1 + count)


def add(db: Connection, numbers: Sequence[int], contents: Sequence[tuple[str, str]]) -> None:
    """Let memories, given as their users and contents, be found."""
    if len(numbers) <= MOST_WAITING:
        db.insert("terms", {"number": numbers, "packed": [terms_of(*one) for one in contents]})


def replace(db: Connection, number: int, terms: bytes) -> None:
    """Let a memory be found by other terms than before."""
    if forget(db, number):
        db.execute(_INDEX, (number, spelled(terms)))
    db.execute(_KEEP, (number, terms))


def forget(db: Connection, number: int) -> bool:
    """Let a memory be found no more; return whether it was indexed."""
    (is_indexed,) = db.execute("SELECT indexed >= ? FROM store", (number,)).fetchone()
    terms = db.execute("DELETE FROM terms WHERE number = ? RETURNING packed", (number,)).fetchall()
    if is_indexed:
        db.executemany(_UNINDEX, [(number, spelled(packed)) for (packed,) in terms])
    return bool(is_indexed)


def postings(db: Connection, user_id: str, terms: Sequence[int]) -> list[str]:
    """Return for each term the numbers of the user's memories that have it, in order and in one text."""
    asked = _own(user_id, b"".join([term.to_bytes(8) for term in terms]))
    found = [text or "" for (text,) in db.execute(POSTINGS, {"asked": json.dumps(spelled(asked).split())})]
    rows = db.execute(WAITING, {"user_id": user_id}).fetchall()
    db.should_index = len(rows) > _MOST_READ
    if not rows:
        return found
    more: dict[int, list[str]] = {term: [] for term in _unpacked(asked)}
    for number, packed, content in rows:
        for term in more.keys() & _unpacked(terms_of(user_id, content) if packed is None else packed):
            more[term].append(str(number))
    return [",".join(filter(None, [text, *more[term]])) for text, term in zip(found, _unpacked(asked), strict=True)]


def extend(db: Connection) -> bool:
    """Bring the memories that wait longest into the index; return whether others may still wait."""
    rows = db.execute(NEXT, {"most": MOST_WAITING}).fetchall()
    made = {number: terms_of(user_id, content) for number, packed, user_id, content in rows if packed is None}
    db.executemany(_KEEP, made.items())
    db.executemany(
        _INDEX, [(number, spelled(made[number] if packed is None else packed)) for number, packed, *_ in rows]
    )
    if rows:
        db.execute("UPDATE store SET indexed = ?", (rows[-1][0],))
    db.should_index = len(rows) == MOST_WAITING
    return db.should_index


class Indexing:
    """Brings the memories that wait into the index, in the background, once they are many."""

    def __init__(self, write: Callable[[Callable[[Connection], bool]], Awaitable[bool]]) -> None:
        self._write = write
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        self.is_due = False

    def look(self) -> None:
        """Begin if it is time."""
        if self.is_due and self._task is None and not self._is_closing:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="openproto-sqlite-words")

    async def close(self) -> None:
        """Stop at once: what is not indexed waits for the next client of the file."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await asyncio.sleep(_REST_SECONDS)
            while await self._write(extend):
                pass
        except OpenProtoError as error:
            _log.debug("sqlite: memories wait to be indexed: %s", type(error).__name__)
        finally:
            self.is_due, self._task = False, None


def _own(user_id: str, packed: bytes) -> bytes:
    """Mix terms with the user's own hash.

    So one user's words stand apart from everybody else's, and a look-up reads that user's entries alone.
    """
    size = len(packed)
    return (int.from_bytes(packed) ^ int.from_bytes(_hash_of(user_id) * (size // 8))).to_bytes(size)


def _unpacked(terms: bytes) -> tuple[int, ...]:
    return unpack(f">{len(terms) // 8}Q", terms)


@lru_cache(maxsize=64)
def _hash_of(user_id: str) -> bytes:
    return blake2b(user_id.encode(), digest_size=8).digest()
