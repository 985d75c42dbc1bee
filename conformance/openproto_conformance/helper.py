"""Another process that tries some of the cases, on a store of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from openproto.registry import make_provider
from openproto_conformance.execute import ALL_WORK, SuiteRun
from openproto_conformance.outcome import Result, Work
from openproto_conformance.runner import suite_of

_END_WITHIN = 1.0


class Errand(NamedTuple):
    """What a helper is to know: its provider, whose options lead to a store that nobody else uses, and the run's."""

    provider: str
    options: Mapping[str, Any]
    deviations: Mapping[str, str]
    patience: float
    secrets: Sequence[str]
    seed: int
    quick: bool


class Helper:
    """A process that tries one piece of work after another as it is told."""

    def __init__(self, errand: Errand) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take over threads' locks, and no thread
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, errand), daemon=True)
        self._process.start()
        theirs.close()

    def opens(self) -> bool:
        """Return whether its provider could be opened; wait until that is known."""
        try:
            opened: bool = self._pipe.recv()
        except (EOFError, OSError):
            return False
        return opened

    def execute(self, work: Work) -> Result | None:
        """Return what came of a piece of work; None where the process ended over it."""
        try:
            self._pipe.send(str(work))
            return Result(work, *self._pipe.recv())
        except (EOFError, OSError):
            return None

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.join(_END_WITHIN)


def _serve(pipe: Connection, errand: Errand) -> None:
    """Try what is asked for until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks is interrupted, and ends this one
    work = {str(piece): piece for piece in ALL_WORK}
    run = SuiteRun(quick=errand.quick, seed=errand.seed)
    suite = suite_of(
        partial(make_provider, errand.provider, errand.options),
        deviations=errand.deviations,
        patience=errand.patience,
        secrets=errand.secrets,
        seed=errand.seed,
    )
    try:
        run.warm_up(suite)
        run.complaints.clear()  # the process that asks has the same ones
        pipe.send(run.problem is None)
        while True:
            result = run.execute(suite, work[pipe.recv()])
            told = (result.outcome, result.detail, result.seconds, result.measures, result.hung, result.exited)
            pipe.send(told)
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)  # a provider may have left threads that do not end
