"""Calls that wait at the same moment go to the backend together, each with its own answer, error, and end.

What is sent one by one costs each call a way to a thread or a server and back, and a write a transaction as well. A
call that finds none under way goes out in the same turn of the event loop, with those that were made in that turn;
the others wait until the answers are there, and then go out together.
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
    """Sends calls to a backend, one gathering at a time.

    Args:
        send: Sends calls and returns the future of their outcomes, in order: an answer, or the exception of that call
            alone. When it fails itself, the backend has refused them together: they are sent again one by one, unless
            the error is one that passes, which all of them would meet again.
        give_up: Is told of a call whose caller was cancelled after it was sent. When that is true of all, the future is
            cancelled as well.
        alone: Sends one call and returns its answer, where there is a way to the backend next to that of a gathering: a
            call that finds nothing waiting and nothing under way takes it, in its caller's own task.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Q]], asyncio.Future[Sequence[A | Exception]]],
        give_up: Callable[[Q], None] = lambda call: None,
        alone: Callable[[Q], Awaitable[A]] | None = None,
    ) -> None:
        self._send_calls = send
        self._give_up = give_up
        self._send_alone = alone
        self._one_is_alone = False
        self._waiting: list[_Waiting[Q, A]] = []
        self._sent: list[_Waiting[Q, A]] = []
        self._alone: list[_Waiting[Q, A]] = []
        self._under_way: asyncio.Future[Sequence[A | Exception]] | None = None
        self._leaves_soon = False

    async def __call__(self, call: Q) -> A:
        """Return the answer to the call; cancelling it takes it out of what waits, or ends it alone."""
        if self._send_alone is not None and not self._one_is_alone and not self._waiting and self._under_way is None:
            self._one_is_alone = True
            try:
                return await self._send_alone(call)
            finally:
                self._one_is_alone = False
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[A] = loop.create_future()
        self._waiting.append((call, answer))
        if self._under_way is None and not self._leaves_soon:
            self._leaves_soon = True
            loop.call_soon(self._send)
        try:
            return await answer
        except asyncio.CancelledError:
            if any(answer is sent for _, sent in self._sent):
                self._give_up(call)
                if self._under_way is not None and all(sent.done() for _, sent in self._sent):
                    self._under_way.cancel()
            raise

    def _send(self) -> None:
        self._leaves_soon = False
        while self._under_way is None:
            self._sent = self._next()
            if not self._sent:
                return
            try:
                self._under_way = self._send_calls([call for call, _ in self._sent])
            except Exception as error:  # nothing can be sent: the backend is closed
                self._refused(error)
            else:
                self._under_way.add_done_callback(self._arrived)

    def _next(self) -> list[_Waiting[Q, A]]:
        """Return who goes next: those that were refused together each alone, then all that wait."""
        while self._alone:
            if not (first := self._alone.pop(0))[1].done():
                return [first]
        waiting = [one for one in self._waiting if not one[1].done()]
        self._waiting = waiting[MOST:]
        return waiting[:MOST]

    def _arrived(self, outcomes: asyncio.Future[Sequence[A | Exception]]) -> None:
        self._under_way = None
        if outcomes.cancelled():  # so were all that waited for it, or the backend was closed under them
            for _, answer in self._sent:
                answer.cancel()
        elif (error := outcomes.exception()) is None:
            for (_, answer), outcome in zip(self._sent, outcomes.result(), strict=True):
                _settle(answer, outcome)
        elif not isinstance(error, Exception):
            for _, answer in self._sent:
                _settle(answer, RuntimeError(f"the backend's thread ended: {type(error).__name__}; open a new client"))
        elif len(self._sent) > 1 and not (isinstance(error, OpenProtoError) and error.retryable):
            self._alone.extend(self._sent)
        else:
            self._refused(error)
        self._sent = []
        self._send()

    def _refused(self, error: Exception) -> None:
        for _, answer in self._sent:
            _settle(answer, copy.copy(error))  # each is signed with the request that it ends
        self._sent = []


class Gatherers(Generic[Q, A]):
    """A gatherer for each group of calls that can go out together, for as long as one of them waits or is under way.

    Args:
        send: Sends calls of one group and returns their outcomes, as a `Gatherer` wants them.
    """

    def __init__(self, send: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]]) -> None:
        self._send = send
        self._gatherers: WeakValueDictionary[Hashable, Gatherer[Q, A]] = WeakValueDictionary()

    async def __call__(self, group: Hashable, call: Q) -> A:
        """Return the answer to the call, which goes out with others of its group."""
        gatherer = self._gatherers.get(group)
        if gatherer is None:
            gatherer = self._gatherers[group] = Gatherer(self._start, alone=self._alone)
        return await gatherer(call)

    def _start(self, calls: Sequence[Q]) -> asyncio.Future[Sequence[A | Exception]]:
        return asyncio.ensure_future(self._send(calls))

    async def _alone(self, call: Q) -> A:
        (outcome,) = await self._send([call])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


_Waiting: TypeAlias = "tuple[Q, asyncio.Future[A]]"


def _settle(answer: asyncio.Future[A], outcome: A | Exception) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
