"""Faults on demand: what goes wrong, with which requests, and for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Latency:
    """The request takes effect at once, and its answer comes `seconds` later."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Drip:
    """The body comes `size` bytes at a time, with `seconds` between."""

    seconds: float
    size: int = 1


@dataclass(frozen=True, slots=True)
class Status:
    """An answer in place of the vendor's, and no effect; without a body it has the shape of the vendor's errors."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class CloseConnection:
    """The connection is closed instead of an answer, or `mid_body`; the request has been `applied` or not."""

    applied: bool = True
    mid_body: bool = False


@dataclass(frozen=True, slots=True)
class ResetConnection:
    """The connection is reset (RST) instead of an answer; the request has been `applied` or not."""

    applied: bool = True


@dataclass(frozen=True, slots=True)
class TruncatedJson:
    """The status and the framing are right, and the JSON stops in the middle; the request has been applied."""


@dataclass(frozen=True, slots=True)
class HtmlWith200:
    """A page of HTML with status 200, as proxies and captive portals answer; the request has no effect."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Nothing happens until the fault is lifted, and then all goes on; a client that leaves is forgotten, unapplied."""


Fault: TypeAlias = Latency | Drip | Status | CloseConnection | ResetConnection | TruncatedJson | HtmlWith200 | Hang


@dataclass(eq=False, slots=True)
class Rule:
    """A fault and the requests that it is for; `lifted` is set on the server's loop when it is over."""

    fault: Fault
    method: str
    path: str
    once: bool
    lifted: asyncio.Event = field(default_factory=asyncio.Event)


class Faults:
    """The faults of one emulator, set from any thread; of several that fit a request, the one set first counts."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def next(self, *faults: Fault, method: str = "*", path: str = "*") -> None:
        """Let the next requests that fit the patterns meet these faults, one each and in order.

        `path="/ns/*/search"` is a shell pattern over the path as it arrives. A Hang lasts until its client leaves.
        """
        with self._lock:
            self._rules += [Rule(fault, method, path, once=True) for fault in faults]

    def always(self, fault: Fault, *, method: str = "*", path: str = "*") -> ExitStack:
        """Let every such request meet the fault until the returned context ends, or is closed, or until `clear`."""
        rule = Rule(fault, method, path, once=False)
        with self._lock:
            self._rules.append(rule)
        context = ExitStack()
        context.callback(self._lift, rule)
        return context

    def clear(self) -> None:
        """Lift every fault that has been set."""
        for rule in list(self._rules):
            self._lift(rule)

    def take(self, method: str, path: str) -> Rule | None:
        """Return the rule that a request meets, and use it up where it is for one request only."""
        with self._lock:
            for rule in self._rules:
                if fnmatchcase(method, rule.method) and fnmatchcase(path, rule.path):
                    if rule.once:
                        self._rules.remove(rule)
                    return rule
        return None

    def serve_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Say on which loop the requests wait that meet a fault."""
        self._loop = loop

    def _lift(self, rule: Rule) -> None:
        with self._lock:
            if rule in self._rules:
                self._rules.remove(rule)
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(rule.lifted.set)
