"""Entries on their way to the audit log: gathered, and written in the background within a second (PROTOCOL §2).

Stores record reads through it. The audit journal, which shares no transaction with the backend, records writes too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Self

from openproto.errors import OpenProtoError
from openproto.models import AuditEntry, Verb
from openproto.provider import current_call
from openproto.stores.moments import from_micros

_log = logging.getLogger(__name__)

FLUSH_EVERY = 0.5
ENOUGH = 1_000
"""How many entries are written at once, without waiting for more."""
MOST_WAITING = 10_000
LOSSES_TOLD_EVERY = 10.0


class AuditRow(NamedTuple):
    """One audit entry as a store keeps it."""

    user_id: str
    timestamp: datetime
    app: str | None
    action: Verb | str
    memory_id: str | None
    scope: str | None
    request_id: str | None

    @classmethod
    def of_micros(cls, row: Sequence[Any]) -> Self:
        """Return the entry of a row whose moment is in microseconds."""
        owner, moment, *rest = row
        return cls(owner, from_micros(moment), *rest)

    def entry(self) -> AuditEntry:
        """Return it as it is answered; it was validated when it was made."""
        user_id, timestamp, app, action, memory_id, scope, request_id = self
        return AuditEntry.of_valid(
            {
                "timestamp": timestamp,
                "action": action,
                "user_id": user_id,
                "app": app,
                "memory_id": memory_id,
                "scope": scope,
                "request_id": request_id,
            },
            {},
        )


def audit_row(
    user_id: str, *, memory_id: str | None = None, scope: str | None = None, app: str | None = None
) -> AuditRow:
    """Return the entry for the call in progress; `app` where the call names one itself, else the client's."""
    call = current_call.get()
    return AuditRow(user_id, datetime.now(UTC), app or call.app, call.verb, memory_id, scope, call.request_id)


class AuditBuffer:
    """Collects entries and hands them to `write` in batches, from a task that lives only while it writes.

    `of` says what is lost when entries are: those of writes are missed more than those of reads.
    """

    def __init__(
        self, write: Callable[[Sequence[AuditRow]], Awaitable[None]], *, of: Literal["read", "write"] = "read"
    ) -> None:
        self._write = write
        self._of = of
        self._loss_level = logging.WARNING if of == "read" else logging.ERROR
        self._waiting: list[AuditRow] = []
        self._taken = self._settled = 0  # how many entries ever came, and how many of them wait no more
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._was_refused = False
        self._dropped = 0  # of which nothing was logged yet
        self._silent_until = 0.0
        self._closed = False
        self._loop = asyncio.get_running_loop()

    def record(self, row: AuditRow) -> None:
        """Take an entry; when the store has refused many, the oldest are given up and the loss is logged."""
        self._waiting.append(row)
        self._taken += 1
        waiting = len(self._waiting)
        if self._timer is None or waiting >= ENOUGH:
            self._wake()
        if waiting > MOST_WAITING:
            lost = waiting - MOST_WAITING
            del self._waiting[:lost]
            self._settled += lost
            self._dropped += lost
            if (now := self._loop.time()) >= self._silent_until:
                self._silent_until = now + LOSSES_TOLD_EVERY
                text = "audit: the store does not take %s entries; %d of the oldest were dropped"
                _log.log(self._loss_level, text, self._of, self._dropped)
                self._dropped = 0

    async def flush(self) -> None:
        """Write whatever waits now, and nothing that comes later: under a steady load that would never end.

        Cancelling the caller does not stop the writing: it would be written twice.
        """
        wanted = self._taken
        while self._settled < wanted:
            writing = self._write_now()
            await asyncio.wait([writing])
            writing.result()

    async def close(self) -> None:
        """Write the rest; what the store does not take now is lost, and logged."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        reason = "closing took too long"
        try:
            await self.flush()
        except OpenProtoError as error:
            # Closing must not fail for the sake of entries, least of all while another error is on its way.
            reason = error.message
        else:
            reason = "they came faster than the store took them"
        finally:
            if lost := self._taken - self._settled + self._dropped:
                _log.log(self._loss_level, "audit: %d %s entries were lost at closing: %s", lost, self._of, reason)

    async def _write_waiting(self) -> None:
        rows, self._waiting = self._waiting, []
        try:
            await self._write(rows)
        except BaseException:
            self._waiting[:0] = rows
            raise
        self._settled += len(rows)

    def _wake(self) -> None:
        if self._writing is None and not self._closed:
            if len(self._waiting) >= ENOUGH and not self._was_refused:
                self._write_now()
            elif self._timer is None:
                self._timer = self._loop.call_later(FLUSH_EVERY, self._write_now)

    def _write_now(self) -> asyncio.Task[None]:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # One that has ended and was not noticed yet would be waited for without ever giving way to the loop.
        if self._writing is None or self._writing.done():
            self._writing = self._loop.create_task(self._write_waiting(), name="openproto-audit")
            self._writing.add_done_callback(self._written)
        return self._writing

    def _written(self, task: asyncio.Task[None]) -> None:
        if self._writing is task:
            self._writing = None
        error = None if task.cancelled() else task.exception()
        self._was_refused = task.cancelled() or error is not None
        if error is not None:
            # Whatever it is, the entries to come must still be recorded.
            _log.debug("audit: %s entries wait for the store: %s", self._of, type(error).__name__)
        if self._waiting:
            self._wake()
