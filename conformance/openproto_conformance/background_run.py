"""Running the suite beside an event loop: what it is doing can be shown, and it can be interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence

from openproto_conformance.execute import SuiteRun
from openproto_conformance.outcome import Result, Work
from openproto_conformance.report import Report
from openproto_conformance.suite import ProviderSuite

THREAD = "openproto-conformance"


class BackgroundRun:
    """One run of a suite over some of its work, in a thread of its own; `report()` may be asked for at any time."""

    def __init__(self, suite: ProviderSuite, work: Sequence[Work], *, provider: str, quick: bool) -> None:
        self.work = work
        self._suite = suite
        self._provider = provider
        self._run = SuiteRun(quick=quick, seed=suite.seed)
        self._stopped = False

    async def run(self, progress: Callable[[Result], None]) -> None:
        """Try the work in order and call `progress` on this loop after each piece.

        When cancelled it ends at once; the piece at hand goes on in its thread, and its result counts for nothing.
        """
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def tell(callback: Callable[..., object], *values: object) -> None:
            with contextlib.suppress(RuntimeError):  # after an interruption the loop is closed
                loop.call_soon_threadsafe(callback, *values)

        def main() -> None:
            try:
                for piece in self.work:
                    result = self._run.execute(self._suite, piece)
                    if self._stopped:
                        return
                    tell(progress, result)
            except Exception as error:
                tell(ended.set_exception, error)
            else:
                tell(ended.set_result, None)

        threading.Thread(target=main, name=THREAD, daemon=True).start()
        try:
            await ended
        finally:
            self._stopped = True

    @property
    def opening_error(self) -> BaseException | None:
        """What the provider raised when it was opened for the first time."""
        return self._run.opening_error

    def report(self) -> Report:
        """Return the report as it stands; what has not been tried is missing."""
        return Report.of(self._run, self._provider)
