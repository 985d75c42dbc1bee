"""A dictionary that forgets: what a long-lived process may remember of many users."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Hashable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from openproto.blocking.forking import in_forked_child

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most `most` entries, the ones used last, each for at most `within` seconds after it was put.

    It may be used from several threads, and in a child process that was forked while another thread used it.
    """

    def __init__(self, most: int, within: float = math.inf) -> None:
        self._most = most
        self._within = within
        self._lock = threading.Lock()
        self._entries: dict[K, tuple[V, float]] = {}
        _all.add(self)

    def get(self, key: K) -> V | None:
        """Return the entry, which thereby is the one used last; None where there is none, or none any more."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is None or self._has_expired(entry[1]):
                return None
            self._entries[key] = entry
            return entry[0]

    def put(self, key: K, value: V) -> None:
        """Set the entry, and forget those that have expired or are too many."""
        with self._lock:
            self._entries.pop(key, None)
            self._entries[key] = (value, time.monotonic())
            for old, (_, since) in list(self._entries.items()):
                if len(self._entries) <= self._most and not self._has_expired(since):
                    break
                del self._entries[old]

    def pop(self, key: K, value: V | None = None) -> None:
        """Forget the entry if it is there; with a `value`, only if it is that very object."""
        with self._lock:
            if value is None or self._entries.get(key, (None, 0.0))[0] is value:
                self._entries.pop(key, None)

    def items(self) -> list[tuple[K, V]]:
        """Return the entries, the one used last at the end."""
        with self._lock:
            return [(key, value) for key, (value, since) in self._entries.items() if not self._has_expired(since)]

    def _has_expired(self, since: float) -> bool:
        return time.monotonic() - since > self._within

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


_all: WeakSet[Recent[Any, Any]] = WeakSet()


@in_forked_child
def _after_fork() -> None:
    # The thread that held a lock stays in the parent, and would never release it here.
    for recent in _all:
        recent._renew_lock()
