"""`openproto conformance`: the suite on a provider, and the matrix of several reports.

`openproto` finds this module, and with it `openproto emulate`, by the entry point group `openproto.commands`, and
imports it in every run of the command line: what costs time is imported inside.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from openproto.cli import faults
from openproto.cli.call import Call, Target
from openproto.cli.clean import clean
from openproto.cli.coerce import explain, pairs
from openproto.cli.command import CARE, command
from openproto.cli.exits import Exit
from openproto.cli.faults import Misuse
from openproto.errors import OpenProtoError
from openproto.provider import Provider
from openproto.registry import provider_class, provider_options
from openproto_conformance.emulate import emulator_named, report_violations

if TYPE_CHECKING:
    from openproto_conformance.background_run import BackgroundRun
    from openproto_conformance.emulators.emulator import Emulator
    from openproto_conformance.report import Report

MATRIX = "matrix"
EMULATED_PATIENCE = 4.0
"""An emulator, the vendor's SDK, and the suite take turns in one interpreter."""
LEAVE_WITHIN = 2.0
"""Seconds that threads of a provider get to end when the command does."""


@command(CARE)
async def conformance(
    call: Call,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME [KEY=VALUE]... | matrix REPORT...",
            help="The provider and its options; or `matrix` and the reports to put side by side.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the report as JSON, and replace FILE.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="AREA", help="Try this area only; repeatable. All others are then missing."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Run every case with less of everything.")] = False,
    deviation: Annotated[
        list[str] | None,
        typer.Option(
            "--deviation",
            metavar="CASE=REASON",
            help="A known failure and why; repeatable. One that passes after all is itself a failure.",
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            "--patience",
            metavar="FACTOR",
            min=1.0,
            help="How many times longer than usual a call and a case may take before they are given up: for a slow "
            "backend. 1, or with --emulated 4.",
        ),
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the report as Markdown.")] = False,
    no_times: Annotated[
        bool, typer.Option("--no-times", help="Leave seconds and figures out: two runs then give the same file.")
    ] = False,
    emulated: Annotated[
        bool,
        typer.Option(
            "--emulated",
            help="Try it on an emulator of the vendor (see `openproto emulate`), with an audit journal where it keeps "
            "no audit log of its own.",
        ),
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="With matrix: put it between the marker comments of FILE."),
    ] = None,
) -> Exit:
    """Try the whole contract on a backend, case by case; or print the matrix of several reports.

    The suite works with invented users and leaves some of their memories behind: give it a database of its own.
    A provider that takes a path gets a temporary one, unless path= names another.

    The exit status is 0 where the backend conforms, or deviates as declared;
    1 where a case fails or was not tried (with --only, always);
    2 for an unknown provider, option, area, or case, and for a report that cannot be written;
    7 where a package is missing;
    130 after an interruption, with a report of what ran until then.
    """
    first, *others = words or [""]
    if first == MATRIX:
        if report or only or quick or deviation or patience or markdown or no_times or emulated:
            raise Misuse("matrix takes reports and --write, no other option")
        return _matrix(call, [Path(word) for word in others], write)
    if write is not None:
        raise Misuse("--write goes with matrix")
    if "=" in first:
        first, others = "", words or []
    given = replace(call.common, provider=first or call.common.provider, option=[*call.common.option, *others])
    known = pairs(deviation or [], "--deviation")
    how = How(only or [], known, patience or (EMULATED_PATIENCE if emulated else 1.0), quick=quick, emulated=emulated)
    return await _try(Call(given), how, report, markdown=markdown, times=not no_times)


class How(NamedTuple):
    """How the suite is to be run."""

    only: Sequence[str]
    deviations: dict[str, str]
    patience: float
    quick: bool
    emulated: bool


async def _try(call: Call, how: How, path: Path | None, *, markdown: bool, times: bool) -> Exit:
    from openproto_conformance.background_run import BackgroundRun
    from openproto_conformance.display import progress, show
    from openproto_conformance.report import write_reports
    from openproto_conformance.runner import suite_of, work_in

    with ExitStack() as stack:
        emulator = stack.enter_context(emulator_named(call.common.provider or "")()) if how.emulated else None
        target = _target(call, stack, emulator)
        make = target.make_provider if emulator is None else _audited(target, stack)
        try:
            suite = suite_of(make, deviations=how.deviations, patience=how.patience, emulator=emulator)
            work = work_in(how.only)
        except (TypeError, ValueError) as error:
            raise Misuse(str(error)) from error
        background = BackgroundRun(suite, work, provider=target.name, quick=how.quick)

        def report() -> Report:
            made = background.report().map_texts(call.redact)
            return made if times else made.timeless()

        if path is not None:
            try:
                write_reports(path, [report()])  # all missing: should the process die, that is what stands there
            except OSError as error:
                raise Misuse(f"--report {path} cannot be written: {error.strerror}") from None
        status: Exit | None = None
        try:
            with progress(call.out, work) as tell:
                await background.run(tell)
        except asyncio.CancelledError:
            status = Exit.INTERRUPTED
        final = report()
        if path is not None:
            write_reports(path, [final])
        if status is None:
            _raise_usage(background)
        show(call.out, final, markdown=markdown)
        if status is Exit.INTERRUPTED:
            resume = "what had not been tried is missing in the report"
            faults.report(KeyboardInterrupt(), call.redact, as_json=call.out.as_json, resume=resume)
        if emulator is not None and report_violations(call, emulator):
            status = status or Exit.FAILED
    return _leave(Exit(final.exit_status) if status is None else status)


def _audited(target: Target, stack: ExitStack) -> Callable[[], Provider]:
    """Return what makes the target's providers, all with one audit journal unless they keep an audit log."""
    if "audit" in target.make_provider().verbs:
        return target.make_provider
    from openproto.layers.audit import Audited

    folder = stack.enter_context(TemporaryDirectory(prefix="openproto-journal-", ignore_cleanup_errors=True))
    return lambda: Audited(target.make_provider(), f"sqlite:///{folder}/audit.db")


def _target(call: Call, stack: ExitStack, emulator: Emulator | None) -> Target:
    """Return what to try; a Misuse unless a provider can be made of it."""
    name = call.common.provider
    if not name:
        raise Misuse("which backend? `openproto conformance NAME key=value ...`", "`openproto providers` lists them")
    given = pairs(call.common.option, "KEY=VALUE")
    overrides = {} if emulator is None else emulator.provider_options()
    takes_path = "path" in provider_options(provider_class(name)) and (emulator is None or emulator.beside_a_file)
    if takes_path and "path" not in given and call.common.path is None:
        folder = stack.enter_context(TemporaryDirectory(prefix="openproto-conformance-", ignore_cleanup_errors=True))
        overrides["path"] = str(Path(folder) / "memory.db")
    if call.common.timeout is not None:
        raise Misuse("--timeout is not for conformance: the suite sets the deadlines")
    target = call.target(**overrides)
    if clients := sorted(given.keys() & target.client_options.keys()):
        raise Misuse(f"{clients[0]} is an option of the client, which the suite makes itself")
    target.make_provider()
    return target


def _raise_usage(background: BackgroundRun) -> None:
    """Raise what opening raised, where that was no answer of the backend but a package or an option at fault."""
    error = background.opening_error
    if isinstance(error, ImportError) and "pip install" in str(error):
        raise error
    if isinstance(error, ValueError) and not isinstance(error, OpenProtoError):
        raise Misuse(str(error)) from error


def _matrix(call: Call, paths: Sequence[Path], write: Path | None) -> Exit:
    """Print the matrix, or put it into a document; the status is that of the worst report."""
    from pydantic import ValidationError

    from openproto_conformance.markers import replace_between
    from openproto_conformance.report import read_reports, to_matrix

    reports: list[Report] = []
    for path in paths:
        try:
            reports += read_reports(path)
        except ValidationError as error:
            raise Misuse(f"{path} is no conformance report: {explain(error)}") from None
    if not reports:
        raise Misuse("matrix wants at least one report", "`openproto conformance NAME --report FILE` writes one")
    matrix = to_matrix(reports)
    if write is not None:
        try:
            replace_between(write, matrix)
        except ValueError as error:
            raise Misuse(f"{write}: {error}") from None
    elif call.out.as_json:
        call.out.json({"markdown": matrix})
    else:
        sys.stdout.write(clean(matrix))
    return Exit(max(report.exit_status for report in reports))


def _leave(status: Exit) -> Exit:
    """Return `status`; but leave the process with it at once where a provider's threads do not end.

    The interpreter waits for threads when it ends, and a hung backend would keep the command with it.
    """
    from openproto_conformance.background_run import THREAD

    deadline = time.monotonic() + LEAVE_WITHIN
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and (not thread.daemon or thread.name == THREAD):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
    return status
