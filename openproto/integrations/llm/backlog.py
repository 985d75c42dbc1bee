"""What a capture queue holds and counts: bounded in length, and the same from every thread."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import replace

from openproto.integrations.llm.stats import CaptureStats
from openproto.integrations.llm.storing import Job, Verdict
from openproto.integrations.llm.turns import Turn


class Backlog:
    """The turns that wait, those that wait for room to wait in, and those being stored; and what became of the rest."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._lock = threading.Lock()
        self._counts = CaptureStats()
        self._waiting: deque[Job] = deque()
        self._without_room: deque[Job] = deque()
        self._unsettled: set[Job] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def admit(self, turn: Turn, *, may_wait: bool) -> Job | None:
        """Return the turn's job, admitted or, where it `may_wait`, waiting to be; None when there is no room."""
        job = Job(turn)
        with self._lock:
            if len(self._waiting) < self._maxsize:
                self._waiting.append(job)
                job.admitted.set_result(True)
            elif may_wait:
                self._without_room.append(job)
            else:
                return None
            self._unsettled.add(job)
        return job

    def take(self, most: int) -> list[Job]:
        """Return up to `most` jobs to be stored, and admit others in their place."""
        with self._lock:
            jobs = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            while self._without_room and len(self._waiting) < self._maxsize:
                job = self._without_room.popleft()
                self._waiting.append(job)
                job.admitted.set_result(True)
        return jobs

    def withdraw(self, job: Job) -> bool:
        """Give up the job's wait for room and return whether it was still waiting."""
        with self._lock:
            waits = job in self._without_room
            if waits:
                self._without_room.remove(job)
        return waits

    def clear(self) -> list[Job]:
        """Return all jobs that wait, and hold them no longer."""
        with self._lock:
            jobs = [*self._waiting, *self._without_room]
            self._waiting.clear()
            self._without_room.clear()
        return jobs

    def settle(self, job: Job, verdict: Verdict) -> None:
        """Count the job's end and wake those who wait for it."""
        with self._lock:
            self._unsettled.discard(job)
        self.count(verdict)
        if not job.admitted.done():
            job.admitted.set_result(False)
        job.settled.set_result(None)

    def unsettled(self) -> list[Job]:
        """Return the jobs whose end is still open."""
        with self._lock:
            return list(self._unsettled)

    def count(self, name: str) -> None:
        """Add one to the figure of that name."""
        with self._lock:
            self._counts = replace(self._counts, **{name: getattr(self._counts, name) + 1})

    def note(self, error: Exception) -> None:
        """Keep the error as the latest."""
        with self._lock:
            self._counts = replace(self._counts, last_error=error)

    def stats(self) -> CaptureStats:
        """Return the counts as they are now."""
        with self._lock:
            waiting = len(self._waiting) + len(self._without_room)
            return replace(self._counts, waiting=waiting, in_flight=len(self._unsettled) - waiting)
