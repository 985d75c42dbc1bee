"""Running the suite next to an event loop: what it is doing can be shown, and it can be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from openproto_conformance.execute import SuiteRun
from openproto_conformance.helper import Errand, Helper
from openproto_conformance.outcome import Result, Work
from openproto_conformance.report import Report
from openproto_conformance.suite import ProviderSuite

THREAD = "openproto-conformance"


class BackgroundRun:
    """One run of a suite over some of its work, in a thread of its own; `report()` may be asked for at any time.

    A helper for each errand takes pieces of the same work, each in a process of its own.
    """

    def __init__(
        self,
        suite: ProviderSuite,
        work: Sequence[Work],
        *,
        provider: str,
        quick: bool,
        errands: Sequence[Errand] = (),
    ) -> None:
        self._suite = suite
        self._left = deque(work)
        self._provider = provider
        self._run = SuiteRun(quick=quick, seed=suite.seed)
        self._errands = errands
        self._stopped = False
        self._taken = 0
        """Pieces that are being tried."""
        self._changed = threading.Condition()

    async def run(self, progress: Callable[[Result], None]) -> None:
        """Try the work in order and call `progress` on this loop after each piece.

        When cancelled it ends at once; the pieces at hand go on, and their results count for nothing.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def tell(callback: Callable[..., object], *values: object) -> None:
            if not self._stopped:
                with contextlib.suppress(RuntimeError):  # after an interruption the loop is closed
                    loop.call_soon_threadsafe(callback, *values)

        def main() -> None:
            try:
                self._try_all(helpers, lambda result: tell(progress, result))
            except Exception as error:
                tell(ended.set_exception, error)
            else:
                tell(ended.set_result, None)

        helpers = [Helper(errand) for errand in self._errands]
        threading.Thread(target=main, name=THREAD, daemon=True).start()
        try:
            await ended
        finally:
            self._stopped = True
            for helper in helpers:
                helper.stop()

    def _try_all(self, helpers: Sequence[Helper], tell: Callable[[Result], None]) -> None:
        waiting = [threading.Thread(target=self._drive, args=(helper, tell), daemon=True) for helper in helpers]
        while (piece := self._take(wait=True)) is not None:
            tell(self._run.execute(self._suite, piece))
            self._give_back()
            while waiting:  # from now on it is known whether the backend can be had
                waiting.pop().start()

    def _drive(self, helper: Helper, tell: Callable[[Result], None]) -> None:
        """Let a helper try pieces for as long as there are any, and it is there."""
        if self._run.problem is not None or not helper.opens():
            return
        while self._run.problem is None and (piece := self._take()) is not None:
            result = helper.execute(piece)
            if result is None:  # its process has ended
                self._give_back(piece)
                return
            tell(self._run.note(result))
            self._give_back()

    def _take(self, *, wait: bool = False) -> Work | None:
        """Return the next piece; with `wait` also one that a helper gives back because it ended."""
        with self._changed:
            while wait and not self._left and self._taken:
                self._changed.wait()
            if self._stopped or not self._left:
                return None
            self._taken += 1
            return self._left.popleft()

    def _give_back(self, *untried: Work) -> None:
        with self._changed:
            self._left.extendleft(untried)
            self._taken -= 1
            self._changed.notify_all()

    @property
    def opening_error(self) -> BaseException | None:
        """What the provider raised when it was opened for the first time."""
        return self._run.opening_error

    def report(self) -> Report:
        """Return the report as it stands; what has not been tried is missing."""
        return Report.of(self._run, self._provider)
