"""Calls that wait at the same moment go to the backend together, each with its own answer, error, and end.

What is sent one by one costs each call a way to a thread or a server and back, and a write a transaction as well. A
call that finds none under way goes out in the same turn of the event loop, with those that were made in that turn;
the others wait until there are answers, and then go out together.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeAlias, TypeVar
from weakref import WeakValueDictionary

from openproto.errors import OpenProtoError

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 256
"""How many calls go out together at most."""


class Gatherer(Generic[Q, A]):
    """Sends calls to a backend, a few gatherings at a time.

    Args:
        send: Sends calls and returns the future of their outcomes, in order: an answer, or the exception of that call
            alone. When it fails itself, the backend has refused them together: they are sent again one by one, unless
            the error is one that passes, which all of them would meet again.
        give_up: Is told of a call whose caller was cancelled after it was sent. When that is true of all, the future is
            cancelled as well.
        alone: Sends one call and returns its answer: a call that finds nothing waiting and nothing under way takes
            it, in its caller's own task; but not after a gathering of several, for then it is the first of more.
        at_once: How many gatherings may be under way, where the backend can work at several. Those that keep coming
            are spread evenly over them.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], asyncio.Future[Sequence[A | Exception]]],
        give_up: Callable[[Q], None] = lambda call: None,
        alone: Callable[[Q], Awaitable[A]] | None = None,
        at_once: int = 1,
    ) -> None:
        self._send_calls = send
        self._give_up = give_up
        self._send_alone = alone
        self._at_once = at_once
        self._one_is_alone = False
        self._waiting: list[_Waiting[Q, A]] = []
        self._refused: list[_Waiting[Q, A]] = []
        self._under_way: dict[asyncio.Future[Sequence[A | Exception]], list[_Waiting[Q, A]]] = {}
        self._leaves_soon = False
        self._last_was_single = True
        self.most = MOST
        """How many go out together at most, which the sender may change."""

    async def __call__(self, call: Q) -> A:
        """Return the answer to the call; cancelling it takes it out of what waits, or ends it alone."""
        if (
            self._last_was_single
            and self._send_alone is not None
            and not (self._waiting or self._under_way or self._one_is_alone)
        ):
            self._one_is_alone = True
            try:
                return await self._send_alone(call)
            finally:
                self._one_is_alone = False
                self._go_on()
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if not self._leaves_soon and self._has_room:
            self._send_soon()
        try:
            return await answer
        except asyncio.CancelledError:
            for outcomes, calls in self._under_way.items():
                if any(answer is sent for _, sent in calls):
                    self._give_up(call)
                    if all(sent.done() for _, sent in calls):
                        outcomes.cancel()
            raise

    @property
    def _has_room(self) -> bool:
        return len(self._under_way) + self._one_is_alone < self._at_once

    def _go_on(self) -> None:
        """Send those that wait: with who calls again after answers that have just come, where the backend has something
        to do meanwhile, else now."""
        if not (self._waiting or self._refused):
            return
        if self._under_way or self._one_is_alone:
            self._send_soon()
        else:
            self._send()

    def _send_soon(self) -> None:
        if not self._leaves_soon:
            self._leaves_soon = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._leaves_soon = False
        while self._has_room and (calls := self._next()):
            self._last_was_single = len(calls) == 1
            try:
                outcomes = self._send_calls([call for call, _ in calls])
            except Exception as error:  # nothing can be sent: the backend is closed
                _refuse(calls, error)
            else:
                self._under_way[outcomes] = calls
                outcomes.add_done_callback(self._arrived)

    def _next(self) -> list[_Waiting[Q, A]]:
        """Return who goes next: those that were refused together each alone, then those that wait."""
        while self._refused:
            if not (first := self._refused.pop(0))[1].done():
                return [first]
        waiting = [one for one in self._waiting if not one[1].done()]
        sent = sum(map(len, self._under_way.values())) + self._one_is_alone
        most = min(self.most, -(-(len(waiting) + sent) // self._at_once))
        self._waiting = waiting[most:]
        return waiting[:most]

    def _arrived(self, outcomes: asyncio.Future[Sequence[A | Exception]]) -> None:
        calls = self._under_way.pop(outcomes)
        if outcomes.cancelled():  # so were all that waited for it, or the backend was closed under them
            for _, answer in calls:
                answer.cancel()
        elif (error := outcomes.exception()) is None:
            for (_, answer), outcome in zip(calls, outcomes.result(), strict=True):
                _settle(answer, outcome)
        elif not isinstance(error, Exception):
            for _, answer in calls:
                _settle(answer, RuntimeError(f"the backend's thread ended: {type(error).__name__}; open a new client"))
        elif len(calls) > 1 and not (isinstance(error, OpenProtoError) and error.retryable):
            self._refused.extend(calls)
        else:
            _refuse(calls, error)
        self._go_on()


class Gatherers(Generic[Q, A]):
    """A gatherer for each group of calls that can go out together, for as long as one of them waits or is under way.

    Args:
        send: Sends calls of one group and returns their outcomes, as a `Gatherer` wants them.
        alone: Sends one call and returns its answer.
        at_once: How many gatherings of a group may be under way.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        alone: Callable[[Q], Awaitable[A]],
        at_once: int,
    ) -> None:
        self._send = send
        self._alone = alone
        self._at_once = at_once
        self._gatherers: WeakValueDictionary[Hashable, Gatherer[Q, A]] = WeakValueDictionary()

    def of(self, group: Hashable) -> Gatherer[Q, A]:
        """Return the gatherer of a group."""
        gatherer = self._gatherers.get(group)
        if gatherer is None:
            gatherer = self._gatherers[group] = Gatherer(self._start, alone=self._alone, at_once=self._at_once)
        return gatherer

    def _start(self, calls: Sequence[Q]) -> asyncio.Future[Sequence[A | Exception]]:
        return asyncio.ensure_future(self._send(calls))


_Waiting: TypeAlias = "tuple[Q, asyncio.Future[A]]"


def _settle(answer: asyncio.Future[A], outcome: A | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _refuse(calls: Sequence[_Waiting[Q, A]], error: Exception) -> None:
    for _, answer in calls:
        _settle(answer, copy.copy(error))  # each is signed with the request that it ends
