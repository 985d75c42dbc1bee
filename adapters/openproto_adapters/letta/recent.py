"""A dictionary that forgets: what a long-lived process may remember of many users."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The entries used last, `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the entry, which thereby is the one used last."""
        if key not in self._entries:
            return None
        self._entries[key] = found = self._entries.pop(key)
        return found

    def put(self, key: K, value: V) -> None:
        """Set the entry, and forget the one that was not used for longest where there are too many."""
        self.pop(key)
        self._entries[key] = value
        if len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]

    def pop(self, key: K) -> None:
        """Forget the entry, if it is there."""
        self._entries.pop(key, None)
