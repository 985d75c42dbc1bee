"""Locks by name, shared by every event loop of the process: what keeps two writers of one memory apart.

Two clients on one backend may run on two loops (`AsyncMemory` and `Memory` in one program), where asyncio's own locks
cannot be shared. Between processes the backend must decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TypeAlias

from openproto.blocking.forking import in_forked_child

Name: TypeAlias = tuple[str, ...]
_Turn: TypeAlias = "asyncio.Future[None]"


class KeyedLocks:
    """Any number of locks, each of which exists while somebody holds it; waiters get their turn in order."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[Name, deque[_Turn]] = {}
        in_forked_child(self._forget)  # where the holders are not, and nobody would ever release what they hold

    @contextlib.asynccontextmanager
    async def hold(self, names: Iterable[Name]) -> AsyncIterator[None]:
        """Hold every lock of `names`; taken in one order by everybody, so that no two wait for each other."""
        taken: list[Name] = []
        try:
            for name in sorted(set(names)):
                await self._take(name)
                taken.append(name)
            yield
        finally:
            for name in taken:
                self._pass_on(name)

    async def _take(self, name: Name) -> None:
        with self._guard:
            waiting = self._held.get(name)
            if waiting is None:
                self._held[name] = deque()
                return
            turn = asyncio.get_running_loop().create_future()
            waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with self._guard:
                given_up = turn in waiting
                if given_up:
                    waiting.remove(turn)
            if not given_up:  # the lock was already on its way here
                self._pass_on(name)
            raise

    def _pass_on(self, name: Name) -> None:
        with self._guard:
            waiting = self._held.get(name)
            while waiting:
                turn = waiting.popleft()
                with contextlib.suppress(RuntimeError):  # a loop that was closed with waiters on it
                    turn.get_loop().call_soon_threadsafe(_grant, turn)
                    return
            self._held.pop(name, None)

    def _forget(self) -> None:
        self._guard = threading.Lock()
        self._held = {}


def _grant(turn: _Turn) -> None:
    if not turn.done():
        turn.set_result(None)
