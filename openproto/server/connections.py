"""The connections of one worker: how many there may be, when one has waited too long, and who gives way.

At the bound a newcomer takes the place of the connection that has waited longest without a whole request, first among
those that never sent one. Only where every connection is serving a request does the newcomer get a 503.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections import Counter
from operator import itemgetter
from typing import Protocol

from openproto.server.settings import ServerSettings

_log = logging.getLogger(__name__)

RESERVED_FILES = 128
"""File descriptors that are left to the backend, the log, and the connections that are being refused."""

MAX_REFUSED = 64
"""Refused connections that may still read their answer; a further one is closed at once."""

_LOG_SECONDS = 10.0
_SWEEPS_PER_TIMEOUT = 4
_LONGEST_SWEEP = 1.0

REFUSED, DISPLACED, SLOW = "answered 503", "closed to make room", "closed because they were too slow"


class Connection(Protocol):
    """What there is to ask of one connection."""

    def precedence(self, now: float) -> tuple[int, float] | None:
        """Return when this connection gives way to a new one (the lowest goes first); None if it does not."""

    def give_way(self) -> None:
        """Close for the sake of a new connection."""

    def check(self, now: float) -> None:
        """End the connection, or this stage of it, if its deadline is over."""


class Connections:
    """The open connections of a worker, and their bounds."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.refused: set[Connection] = set()
        self._open: dict[Connection, str] = {}
        self._by_address: Counter[str] = Counter()
        self._events: Counter[str] = Counter()
        self._logged = float("-inf")
        self._sweeping = False
        shortest = min(settings.head_timeout, settings.body_timeout, settings.idle_timeout)
        self._interval = min(_LONGEST_SWEEP, shortest / _SWEEPS_PER_TIMEOUT)

    @property
    def bound(self) -> int:
        """Connections that may be open at once: as configured, or fewer where files run short."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(1, min(self.settings.max_connections, files - RESERVED_FILES))

    def admit(self, new: Connection, address: str) -> bool:
        """Take a connection in, if need be in the place of one that waits; False where none can give way."""
        bound = self.bound
        at_address = min(bound, self.settings.max_connections_per_address)
        if self._by_address[address] >= at_address:
            admitted = self._displace(address)
        else:
            admitted = len(self._open) < bound or self._displace(None)
        if admitted:
            self._open[new] = address
            self._by_address[address] += 1
            self._sweep_later()
        else:
            self.note(REFUSED)
        return admitted

    def remove(self, gone: Connection) -> None:
        """Forget a connection that has ended."""
        self.refused.discard(gone)
        address = self._open.pop(gone, None)
        if address is None:
            return
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def note(self, event: str) -> None:
        """Count what happened to a connection; the log has the first at once, and sums afterwards."""
        self._events[event] += 1
        self._log_events(self._loop.time())

    def _displace(self, address: str | None) -> bool:
        """Close the connection that gives way to a new one (of this address); False where there is none."""
        now = self._loop.time()
        waiting = [
            (precedence, connection)
            for connection, where in self._open.items()
            if (address is None or where == address) and (precedence := connection.precedence(now)) is not None
        ]
        if not waiting:
            return False
        _, first = min(waiting, key=itemgetter(0))
        self.remove(first)
        first.give_way()
        self.note(DISPLACED)
        return True

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(self._interval, self._sweep)

    def _sweep(self) -> None:
        """End what is past its deadline: one look at all connections costs less than a timer for each request."""
        now = self._loop.time()
        for connection in {*self._open, *self.refused}:
            connection.check(now)
        self._log_events(now)
        self._sweeping = False
        if self._open or self.refused or self._events:
            self._sweep_later()

    def _log_events(self, now: float) -> None:
        if not self._events or now - self._logged < _LOG_SECONDS:
            return
        said = ", ".join(f"{number} {event}" for event, number in sorted(self._events.items()))
        _log.warning(
            "connections: %s; %d of at most %d are open (--max-connections, --max-connections-per-address, and the "
            "limit of open files bound them)",
            said,
            len(self._open),
            self.bound,
        )
        self._events.clear()
        self._logged = now
