"""What a client reports about its calls: an event for every observer, and running figures.

An event holds no content, no query, and no credential, so that it may go into any log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from openproto.errors import OpenProtoError
from openproto.models import Verb

_log = logging.getLogger(__name__)

_RECENT = 1000


@dataclass(frozen=True, slots=True)
class CallEvent:
    """A call that has ended."""

    verb: Verb
    provider: str
    outcome: str
    """`ok`, `cancelled`, the code of a protocol error, or the name of another exception's class."""
    seconds: float
    retries: int
    request_id: str
    app: str | None = None
    scope: str | None = None
    memory_id: str | None = None
    """The memory that the call named by its id."""


def outcome_of(error: BaseException) -> str:
    """Return the outcome of a call that ended in `error`."""
    if isinstance(error, OpenProtoError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__


Observer: TypeAlias = Callable[[CallEvent], None]
"""Called on the client's event loop when a call has ended; it must return at once."""


@dataclass(frozen=True, slots=True)
class VerbStats:
    """Figures of one verb; the latencies, in seconds, are of its latest 1,000 calls."""

    calls: int = 0
    errors: int = 0
    cancelled: int = 0
    retries: int = 0
    p50: float = 0.0
    p95: float = 0.0
    longest: float = 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What a client has done since it was made."""

    in_flight: int
    calls: int
    errors: int
    cancelled: int
    retries: int
    verbs: dict[str, VerbStats] = field(default_factory=dict)


class Meter:
    """Counts the calls of one client and reports each to its observers."""

    def __init__(self, observers: tuple[Observer, ...] = ()) -> None:
        self.observers = observers
        self._verbs: dict[str, _Tally] = {}
        self._failing: set[int] = set()

    def count(self, verb: Verb, outcome: str, seconds: float, retries: int) -> None:
        """Count a call that has ended."""
        tally = self._verbs.get(verb)
        if tally is None:
            tally = self._verbs[verb] = _Tally()
        tally.calls += 1
        tally.retries += retries
        if outcome != "ok":
            tally.cancelled += outcome == "cancelled"
            tally.errors += outcome != "cancelled"
        tally.recent.append(seconds)

    def report(self, event: CallEvent) -> None:
        """Hand an event to the observers; one that raises does the call no harm and is logged once."""
        for number, observer in enumerate(self.observers):
            try:
                observer(event)
            except Exception:  # an observer is the application's, and may raise anything
                if number not in self._failing:
                    text = "an observer failed on a call of %s; that is told once, until it works again"
                    _log.warning(text, event.verb, exc_info=True)
                self._failing.add(number)
            else:
                self._failing.discard(number)

    def stats(self, in_flight: int) -> Stats:
        """Return the figures as they are now."""
        verbs = {verb: tally.stats() for verb, tally in list(self._verbs.items())}
        of = list(verbs.values())
        return Stats(
            in_flight=in_flight,
            calls=sum(verb.calls for verb in of),
            errors=sum(verb.errors for verb in of),
            cancelled=sum(verb.cancelled for verb in of),
            retries=sum(verb.retries for verb in of),
            verbs=verbs,
        )


class _Tally:
    __slots__ = ("calls", "cancelled", "errors", "recent", "retries")

    def __init__(self) -> None:
        self.calls = self.errors = self.cancelled = self.retries = 0
        self.recent: deque[float] = deque(maxlen=_RECENT)

    def stats(self) -> VerbStats:
        ordered = sorted(self.recent.copy())
        return VerbStats(
            self.calls,
            self.errors,
            self.cancelled,
            self.retries,
            p50=ordered[len(ordered) // 2],
            p95=ordered[len(ordered) * 95 // 100],
            longest=ordered[-1],
        )


def log_calls(logger: logging.Logger | None = None, level: int = logging.INFO) -> Observer:
    """Return an observer that logs every call: at `level` where it went well, at WARNING where it failed."""
    target = logger or logging.getLogger("openproto.calls")

    def observe(event: CallEvent) -> None:
        target.log(
            level if event.outcome in ("ok", "cancelled") else logging.WARNING,
            "%s on %s: %s in %.1f ms%s (request %s)",
            event.verb,
            event.provider,
            event.outcome,
            event.seconds * 1000,
            f" after {event.retries} retries" if event.retries else "",
            event.request_id,
        )

    return observe
