"""What an emulator has seen: requests, sockets, and clients that left."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

KEPT = 10_000


class Exchange(NamedTuple):
    """A request and the status it was answered with; None where the client left, or the connection was cut."""

    method: str
    path: str
    status: int | None


class Counters:
    """Counts, written on the server's thread and read from any; `wait_for` waits until they say something."""

    def __init__(self) -> None:
        self.requests = 0
        self.by_route: Counter[str] = Counter()
        """How often each route was asked for, as in `{"GET /v1/notes/{id}": 2}`."""
        self.exchanges: deque[Exchange] = deque(maxlen=KEPT)
        """The latest requests in the order in which they ended."""
        self.opened = 0
        self.open = 0
        """Connections: ever, and now."""
        self.in_flight = 0
        self.max_in_flight = 0
        """Requests that have arrived and are not answered: now, and at most."""
        self.disconnects = 0
        """Clients that left while their request was being served."""
        self.tell: Callable[[Exchange], None] = lambda exchange: None
        """Called with each request as it ends, on the server's thread."""
        self._changed = threading.Condition()

    def connected(self) -> None:
        """Note a new connection."""
        with self._changed:
            self.opened += 1
            self.open += 1
            self._changed.notify_all()

    def disconnected(self) -> None:
        """Note the end of a connection."""
        with self._changed:
            self.open -= 1
            self._changed.notify_all()

    def began(self) -> None:
        """Note that a request has arrived."""
        with self._changed:
            self.requests += 1
            self.in_flight += 1
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self._changed.notify_all()

    def routed(self, route: str) -> None:
        """Note which route a request asks for."""
        self.by_route[route] += 1

    def ended(self, exchange: Exchange, *, left: bool) -> None:
        """Note how a request ended, and whether its client had left by then."""
        with self._changed:
            self.in_flight -= 1
            self.disconnects += left
            self.exchanges.append(exchange)
            self._changed.notify_all()
        self.tell(exchange)

    def wait_for(self, condition: Callable[[Counters], bool], timeout: float = 5.0) -> None:
        """Wait until `condition` holds; a TimeoutError with the counts where it does not within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise TimeoutError(f"waited {timeout:g} s in vain; by then: {self}")

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.in_flight} in flight (at most {self.max_in_flight}), "
            f"{self.open} of {self.opened} connections open, {self.disconnects} clients left"
        )
