"""What this process has written in the last moments, of which Supermemory may not know yet.

A document is at times not found right after it was added, and one that was deleted may still be found. Shared by all
clients of the process, so that none of them knows less than another. Bounded in number and in time.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Literal, TypeAlias

from openproto.emulation import Stored

WITHIN = 10.0
"""Seconds for which this process's word counts for more than Supermemory's."""

MOST = 1000

Gone: TypeAlias = Literal["deleted", "erased"]
State: TypeAlias = Stored | Gone


class Recent:
    """The last state of each memory that was written: the memory, or that it was deleted, or erased with its key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._states: dict[tuple[str, str], tuple[State, float]] = {}
        if hasattr(os, "register_at_fork"):
            # Another thread may hold the lock while this process forks.
            os.register_at_fork(after_in_child=self._renew_lock)

    def note(self, store: str, id: str, state: State) -> None:
        """Remember a write that has just been accepted."""
        with self._lock:
            self._states.pop((store, id), None)
            self._states[store, id] = (state, time.monotonic())
            if len(self._states) > MOST:
                del self._states[next(iter(self._states))]

    def note_erased(self, store: str, token: str) -> None:
        """Remember that nothing of a user is left."""
        with self._lock:
            now = time.monotonic()
            for name in self._states:
                if name[0] == store and name[1].startswith(token):
                    self._states[name] = ("erased", now)

    def get(self, store: str, id: str) -> State | None:
        """Return the state of a memory that was written in the last moments."""
        with self._lock:
            state, since = self._states.get((store, id), (None, 0.0))
            if state is not None and time.monotonic() - since > WITHIN:
                del self._states[store, id]
                return None
            return state

    def forget(self, store: str, id: str, state: State) -> None:
        """Forget a state that Supermemory has caught up with, unless there is a newer one."""
        with self._lock:
            if self._states.get((store, id), (None, 0.0))[0] is state:
                del self._states[store, id]

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()
