"""The deadlines of a client's calls, which all may take equally long: one timer of the event loop serves them all."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Self, cast


class Deadlines:
    """Bounds calls on one event loop; each may take `seconds`, or as long as it will.

    They run out in the order in which they began, so only the first of them needs a timer. One for each call, set and
    cancelled again, takes longer than all else that a client adds to a call.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.running: dict[Deadline, float] = {}
        """When each of them runs out, in order."""
        self._timer: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Stop the timer where nothing runs any more: it would be kept for as long as a call may take."""
        if self._timer is not None and not self.running:
            self._timer.cancel()
            self._timer = None

    def ring_in(self, seconds: float) -> None:
        """Look at what has run out then, if that is not planned already."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = time.monotonic()
        over: list[Deadline] = []
        for deadline, ends_at in self.running.items():
            if ends_at > now:
                self.ring_in(ends_at - now)
                break
            over.append(deadline)
        for deadline in over:
            del self.running[deadline]
            deadline.expire()


class Deadline:
    """Cancels the task that runs its `with` block when the time is over, and turns that into a TimeoutError.

    What `asyncio.timeout` does, for one of many blocks of equal length.
    """

    __slots__ = ("_cancelling", "_deadlines", "_task", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        self.expired = False

    def __enter__(self) -> Self:
        if (seconds := self._deadlines.seconds) is not None:
            self._deadlines.running[self] = time.monotonic() + seconds
            if len(self._deadlines.running) == 1:
                self._deadlines.ring_in(seconds)
        return self

    def expire(self) -> None:
        """Cancel the task."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            self._deadlines.running.pop(self, None)
        elif self._task.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error
