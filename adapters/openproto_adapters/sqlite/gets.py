"""Records that are asked for while others are being read are read together, in the next trip to a thread.

A record takes a few microseconds to read and a trip many times that, so that a server with many readers is several
times as fast; a single get does not wait for others.
"""

from __future__ import annotations

import asyncio
import copy
from typing import TypeAlias

from openproto.errors import OpenProtoError
from openproto.models import MemoryRecord
from openproto.requests import RecordRef
from openproto_adapters.sqlite import statements
from openproto_adapters.sqlite.database import Connection, Database

_Asked: TypeAlias = tuple[RecordRef, "asyncio.Future[MemoryRecord]"]


class GetBatcher:
    """The gets of one open file; only one trip is under way at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[_Asked] = []
        self._read_now: list[_Asked] = []
        self._trip: asyncio.Task[None] | None = None

    async def get(self, ref: RecordRef) -> MemoryRecord:
        """Return the record, or raise NotFoundError; a trip whose callers were all cancelled is stopped."""
        answer: asyncio.Future[MemoryRecord] = asyncio.get_running_loop().create_future()
        self._waiting.append((ref, answer))
        if self._trip is None:
            self._start()
        try:
            return await answer
        except asyncio.CancelledError:
            if self._trip is not None and all(answer.done() for _, answer in self._read_now):
                self._trip.cancel()
            raise

    def _start(self) -> None:
        self._trip = asyncio.create_task(self._run(), name="openproto-sqlite-gets")
        self._trip.add_done_callback(self._arrived)

    def _arrived(self, trip: asyncio.Task[None]) -> None:
        self._trip = None
        if self._waiting:  # the trip was stopped
            self._start()

    async def _run(self) -> None:
        while self._waiting:
            self._read_now = [(ref, answer) for ref, answer in self._waiting if not answer.done()]
            self._waiting = []
            refs = [ref for ref, _ in self._read_now]
            try:
                found = await self._database.read_once(lambda db, refs=refs: [_get(db, ref) for ref in refs])  # type: ignore[misc]
            except Exception as error:
                found = [copy.copy(error) for _ in refs]  # each is signed with the request that it ends
            for (_, answer), record in zip(self._read_now, found, strict=True):
                if answer.done():
                    continue
                if isinstance(record, Exception):
                    answer.set_exception(record)
                else:
                    answer.set_result(record)
            self._read_now = []


def _get(db: Connection, ref: RecordRef) -> MemoryRecord | Exception:
    try:
        return statements.get(db, ref)
    except OpenProtoError as error:
        return error
