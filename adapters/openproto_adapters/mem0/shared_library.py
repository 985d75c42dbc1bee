"""Stores that live in this process: opened once for all clients, and used by one thread at a time.

mem0's local stores are not thread-safe (after two concurrent adds, searches fail for the life of the process), and
their folder can be open only once. So all clients share one library for each folder, and one lock around its calls.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakValueDictionary

from openproto.blocking.abort import current_abort
from openproto.blocking.forking import in_forked_child
from openproto.errors import ProviderError, ProviderUnavailableError


class SharedLibrary:
    """An open library and its users. A `shared` one has a lock; for the others a server keeps order."""

    def __init__(self, *, shared: bool) -> None:
        self.lock: contextlib.AbstractContextManager[Any] = threading.Lock() if shared else contextlib.nullcontext()
        self._users: set[int] = set()
        self._memory: Any = None
        self._config: Mapping[str, Any] = {}

    def enter(self, user: object, config: Mapping[str, Any], build: Callable[[Mapping[str, Any]], Any]) -> None:
        """Open the library for `user`, or join those who have it open with the same configuration."""
        with self.lock:
            current_abort().check()
            if not self._users:
                self._memory, self._config = build(config), config
            elif config != self._config:
                raise ProviderError(
                    "this store is open in this process with another configuration or embedder; "
                    "use the same for all clients, or another path="
                )
            self._users.add(id(user))

    def leave(self, user: object, close: Callable[[Any], None]) -> None:
        """Close the library if `user` is the last; nothing happens for one that never entered."""
        with self.lock:
            if id(user) in self._users:
                self._users.remove(id(user))
                if not self._users:
                    memory, self._memory = self._memory, None
                    close(memory)

    @contextlib.contextmanager
    def turn(self, user: object) -> Iterator[Any]:
        """Have the library to oneself; a call that was given up while it waited for that does not begin."""
        with self.lock:
            current_abort().check()
            if id(user) not in self._users:
                raise ProviderUnavailableError("the client was closed while this call was running; use an open one")
            yield self._memory


_libraries: WeakValueDictionary[tuple[str, str], SharedLibrary] = WeakValueDictionary()
_guard = threading.Lock()


def shared_library(store: str, path: str) -> SharedLibrary:
    """Return the library of all clients in this process whose `store` is at `path`."""
    where = path if path == ":memory:" else os.path.realpath(path)
    with _guard:
        return _libraries.setdefault((store, where), SharedLibrary(shared=True))


@in_forked_child
def _forget() -> None:
    """Leave everything to the parent of this forked process, where the threads live that hold the locks."""
    global _guard
    _guard = threading.Lock()
    _libraries.clear()
