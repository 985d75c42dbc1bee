"""Finding the shortest history that still shows a difference."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from openproto_conformance.histories.player import Difference
from openproto_conformance.histories.steps import History, Step

MOST_PLAYS = 300
_NEEDED = ("content", "user_id", "id", "key", "query", "limit", "items", "records", "token_budget", "at")


async def shortest(
    history: History, found: Difference, play: Callable[[History], Awaitable[Difference | None]], seconds: float
) -> tuple[History, Difference]:
    """Leave out steps, parts, and arguments as long as a difference of the same kind remains, for `seconds` at most."""
    tried = _Tried(play, found, time.monotonic() + seconds)
    best = tuple(step for step in history if step.number <= found.step.number)
    size = max(1, len(best) // 2)
    while size:
        shorter = await tried.first(_without(best, size))
        if shorter is None:
            size //= 2
        else:
            best = shorter
    while (simpler := await tried.first(_simpler_histories(best))) is not None:
        best = simpler
    return best, tried.found


class _Tried:
    """Plays candidates until one shows the same kind of difference, as long as there is time."""

    def __init__(
        self, play: Callable[[History], Awaitable[Difference | None]], found: Difference, deadline: float
    ) -> None:
        self.found = found
        self._play = play
        self._deadline = deadline
        self._plays = 0

    async def first(self, candidates: Iterator[History]) -> History | None:
        """Return the first candidate that still shows it."""
        for candidate in candidates:
            self._plays += 1
            if self._plays > MOST_PLAYS or time.monotonic() > self._deadline:
                return None
            again = await self._play(candidate)
            if again is not None and again.kind == self.found.kind:
                self.found = again
                return candidate
        return None


def _without(history: History, size: int) -> Iterator[History]:
    """Yield the history without each run of `size` steps, later runs first; its last step stays."""
    for start in range(len(history) - 1 - size, -1, -size):
        yield history[:start] + history[start + size :]
    if size < len(history):
        yield history[size:]


def _simpler_histories(history: History) -> Iterator[History]:
    """Yield the history with one argument, item, or part fewer."""
    for n, step in enumerate(history):
        for simpler in _simpler(step):
            yield (*history[:n], simpler, *history[n + 1 :])


def _simpler(step: Step) -> Iterator[Step]:
    for argument in step.arguments:
        if argument not in (
            "content",
            "user_id",
            "id",
            "key",
            "query",
            "limit",
            "items",
            "records",
            "token_budget",
            "at",
        ):
            yield step.without(argument)
    items = step.arguments.get("items", ())
    for n, item in enumerate(items):
        if len(items) > 1 and n == len(items) - 1:
            yield replace(step, arguments={"items": items[:n]})
        for argument in item:
            if argument not in ("content", "user_id"):
                fewer = {name: value for name, value in item.items() if name != argument}
                yield replace(step, arguments={"items": [*items[:n], fewer, *items[n + 1 :]]})
    if step.verb in ("at once", "race") and len(step.parts) > 2:
        yield replace(step, parts=step.parts[: len(step.parts) // 2])
        yield replace(step, parts=step.parts[len(step.parts) // 2 :])
