"""One run of the suite for the command line: shown as it goes, reported after each area, and ended by signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from openproto.cli import reporting
from openproto.cli.call import Call
from openproto.cli.exits import Exit
from openproto.cli.reporting import Misuse
from openproto.errors import OpenProtoError
from openproto_conformance.background_run import BackgroundRun
from openproto_conformance.display import progress, show, show_differences
from openproto_conformance.emulate import emulator_named, report_violations
from openproto_conformance.helper import Errand
from openproto_conformance.how import How
from openproto_conformance.leaks import BACKGROUND_LOOP
from openproto_conformance.outcome import Result
from openproto_conformance.report import Report, write_reports
from openproto_conformance.runner import suite_of, work_in
from openproto_conformance.target import Made, made_by, stores_beside
from openproto_conformance.verify import differences

USUAL_PROCESSES = 3

LEAVE_WITHIN = 2.0
"""Seconds that threads of a provider get to end when the command does."""


async def certify(call: Call, how: How, path: Path | None, *, markdown: bool = False) -> Exit:
    """Run the suite, show its report, and return the exit status; `path` is where the report is kept."""
    before = threading.enumerate()
    report, status = await _run(call, how, path, lambda final: show(call.out, final, markdown=markdown))
    return _leave(Exit(report.exit_status) if status is None else status, before)


async def compare(call: Call, how: How, old: Report, path: Path | None) -> Exit:
    """Run the suite again and show in what the new report differs from the old one; 1 where it does."""
    told: list[str] = []

    def show_them(new: Report) -> None:
        told.extend(differences(old, new))
        show_differences(call.out, new, told)

    before = threading.enumerate()
    report, status = await _run(call, how, path, show_them)
    return _leave((Exit.FAILED if told else Exit(report.exit_status)) if status is None else status, before)


async def _run(
    call: Call, how: How, path: Path | None, show_it: Callable[[Report], None]
) -> tuple[Report, Exit | None]:
    with ExitStack() as stack:
        emulator = stack.enter_context(emulator_named(call.common.provider or "")()) if how.emulated else None
        made = made_by(call, how, stack, emulator)
        try:
            suite = suite_of(
                made.make,
                deviations=how.deviations,
                patience=how.patience,
                secrets=made.secrets,
                emulator=emulator,
                seed=how.seed,
            )
            work = work_in(how.only)
        except (TypeError, ValueError) as error:
            raise Misuse(str(error)) from error
        errands = _errands(made, how, stack)
        background = BackgroundRun(suite, work, provider=made.name, quick=how.quick, errands=errands)

        def report() -> Report:
            found = background.report().map_texts(call.redact)
            return found if how.times else found.timeless()

        def keep() -> None:
            if path is not None:
                write_reports(path, [report()])

        try:
            keep()  # all missing: should the process die at once, that is what stands there
        except OSError as error:
            raise Misuse(f"--report {path} cannot be written: {error.strerror}") from None
        left = Counter(piece.case.area for piece in work)
        status: Exit | None = None
        stdout = sys.stdout
        try:
            with progress(call.out, work) as tell, _ended_by_sigterm():

                def heard(result: Result) -> None:
                    area = result.work.case.area
                    left[area] -= 1
                    if not left[area]:
                        keep()
                    tell(result)

                await background.run(heard)
        except asyncio.CancelledError:
            status = Exit.INTERRUPTED
        finally:
            sys.stdout = stdout  # a case that was interrupted may still listen there
        final = report()
        if path is not None:
            write_reports(path, [final])
        if status is None:
            _raise_usage(background, made)
        show_it(final)
        if status is Exit.INTERRUPTED:
            resume = "what had not been tried is missing in the report"
            reporting.report(KeyboardInterrupt(), call.redact, as_json=call.out.as_json, resume=resume)
        if emulator is not None and report_violations(call, emulator):
            status = status or Exit.FAILED
    return final, status


def _errands(made: Made, how: How, stack: ExitStack) -> list[Errand]:
    """Return what further processes are to know; a Misuse where these were asked for and cannot be had."""
    if made.at_a_path is None:
        if (how.processes or 1) > 1 and not made.broken:
            raise Misuse(f"--processes: each would need a store of its own, and {made.name} has no path for that alone")
        return []
    wanted = how.processes or (1 if how.only else min(USUAL_PROCESSES, _cores() + 1))  # one waits for the disk
    told = (how.deviations, how.patience, made.secrets, how.seed, how.quick)
    return [Errand(made.name, options, *told) for options in stores_beside(made.at_a_path, wanted - 1, stack)]


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM cancel the running task, as SIGINT does."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    handled = False
    if task is not None:
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
            handled = True
    try:
        yield
    finally:
        if handled:
            loop.remove_signal_handler(signal.SIGTERM)


def _raise_usage(background: BackgroundRun, made: Made) -> None:
    """Raise what opening raised, where that was no answer of the backend but a package or an option at fault."""
    error = background.opening_error
    if isinstance(error, ImportError) and "pip install" in str(error):
        raise error
    if isinstance(error, ValueError) and not isinstance(error, OpenProtoError) and not made.broken:
        raise Misuse(str(error)) from error


def _leave(status: Exit, before: list[threading.Thread]) -> Exit:
    """Return `status`; but leave the process with it at once where a provider's threads do not end.

    Threads that ran `before` the suite belong to the program that called it. For the others the interpreter waits when
    it ends, for workers of an executor even where they are daemons, and a hung backend would keep the command with it;
    not for threads that no Python code started, which nobody can join.
    """
    deadline = time.monotonic() + LEAVE_WITHIN
    for thread in threading.enumerate():
        foreign = thread in before or isinstance(thread, threading._DummyThread)
        if not foreign and thread.name != BACKGROUND_LOOP:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    return status
