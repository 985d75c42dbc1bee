"""`openproto conformance`: the suite on a provider, the check of a report, and the matrix of several.

`openproto` finds this module, and with it `openproto emulate` and `openproto new-provider`, by the entry point group
`openproto.commands`, and imports it in every run of the command line: what costs time is imported inside.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import openproto_conformance.emulate
import openproto_conformance.new_provider  # noqa: F401 - a command too
from openproto.cli.call import Call
from openproto.cli.clean import clean
from openproto.cli.coerce import pairs
from openproto.cli.command import CARE, command
from openproto.cli.exits import Exit
from openproto.cli.reporting import Misuse, report_refusal
from openproto_conformance.how import How

if TYPE_CHECKING:
    from openproto_conformance.report import Report

MATRIX, VERIFY = "matrix", "verify"
EMULATED_PATIENCE = 4.0
"""An emulator, the vendor's SDK, and the suite take turns in one interpreter."""


@command(CARE)
async def conformance(
    call: Call,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORD",
            help="NAME [KEY=VALUE]..., the provider and its options; or verify REPORT [NAME] [KEY=VALUE]..., to check "
            "a report; or matrix REPORT..., to put reports side by side.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write the report as JSON, after each area, and replace FILE."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only", metavar="AREA|CASE", help="Try this area or case only; repeatable. All others are then missing."
        ),
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
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            min=0,
            help="Which histories and random moments are tried: two runs with one seed try the same. 0 unless given, "
            "or with verify that of the report.",
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            "--processes",
            metavar="N",
            min=1,
            help="How many processes share the cases, each on a path of its own: 3 where `path` alone says where the "
            "memories are, unless --only names a part, and otherwise 1. Give 1 where there can be one store at a time.",
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
    audit: Annotated[
        str | None,
        typer.Option(
            "--audit",
            metavar="URL",
            help="Certify the provider together with the audit journal at this URL, such as sqlite:///audit.db.",
        ),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="With verify: run the suite once more and compare case by case.")
    ] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="With matrix: put it between the marker comments of FILE."),
    ] = None,
) -> Exit:
    """Try the whole contract on a backend, case by case; check a report; or print the matrix of several.

    The suite works with invented users and leaves some of their memories behind: give it a database of its own.
    A provider that takes a path gets a temporary one, unless its options say where the memories are.

    The exit status is 0 where the backend conforms, or deviates as declared;
    1 where a case fails or was not tried (with --only, always), and for a report that is not one of this suite, was
    changed, or does not come out the same again;
    2 for an unknown provider, option, area, or case, and for a report that cannot be read or written;
    7 where a package is missing;
    130 after an interruption, with a report of what ran until then.
    """
    first, *others = words or [""]
    given = (report, only, quick, deviation, patience, seed is not None, markdown, no_times, emulated, audit, processes)
    running = any(given)
    if write is not None and first != MATRIX:
        raise Misuse("--write goes with matrix")
    if again and first != VERIFY:
        raise Misuse("--again goes with verify")
    if first == MATRIX and running:
        raise Misuse("matrix takes reports and --write, no other option")
    if first == VERIFY and running and not again:
        raise Misuse("verify takes reports; the options of a run go with --again")
    if first == MATRIX:
        return _matrix(call, [Path(word) for word in others], write)
    known = pairs(deviation or [], "--deviation")
    factor = patience or (EMULATED_PATIENCE if emulated else 1.0)
    how = How(
        only=only or [],
        deviations=known,
        patience=factor,
        seed=seed or 0,
        quick=quick,
        emulated=emulated,
        audit=audit,
        times=not no_times,
        processes=processes,
    )
    if first == VERIFY:
        return await _verify(call, others, how if again else None, report, seed)
    from openproto_conformance.certify import certify

    return await certify(_given(call, words or []), how, report, markdown=markdown)


def _given(call: Call, words: Sequence[str], default: str | None = None) -> Call:
    """Return the call with a provider's name, where the first of `words` is one, and the options in the others."""
    name = words[0] if words and "=" not in words[0] else None
    options = [*call.common.option, *words[name is not None :]]
    provider = name or call.common.provider or default
    return Call(replace(call.common, provider=provider, option=options))


async def _verify(call: Call, words: Sequence[str], how: How | None, path: Path | None, seed: int | None) -> Exit:
    """Say of each report what was checked and what cannot be known; or run the suite again and compare."""
    from openproto_conformance.verify import UNKNOWABLE, UntrustedReport, checked, read_reports

    if not words:
        raise Misuse("verify wants a report", "`openproto conformance NAME --report FILE` writes one")
    files, options = (words, []) if how is None else (words[:1], words[1:])
    try:
        found = [(file, report) for file in files for report in read_reports(Path(file))]
    except UntrustedReport as error:
        return report_refusal(error, call.redact, as_json=call.out.as_json)
    if how is not None:
        if len(found) != 1:
            raise Misuse(f"{files[0]} holds {len(found)} reports; --again compares with one")
        from openproto_conformance.certify import compare

        report = found[0][1]
        how = how._replace(quick=report.quick, seed=report.seed if seed is None else seed)
        return await compare(_given(call, options, report.provider), how, report, path)
    if call.out.as_json:
        told = [
            {"file": file, "provider": report.provider, "headline": report.headline, "checked": checked(report)}
            for file, report in found
        ]
        call.out.json({"reports": told, "cannot_know": UNKNOWABLE})
        return Exit(max(report.exit_status for _, report in found))
    for file, report in found:
        call.out.line(f"{file}: {report.provider}: {report.headline}", "bold")
        for text in checked(report):
            call.out.line(f"  checked: {text}")
    for text in UNKNOWABLE:
        call.out.line(f"cannot know: {text}")
    call.out.note("`openproto conformance verify REPORT --again KEY=VALUE...` runs the suite and compares.")
    return Exit(max(report.exit_status for _, report in found))


def _matrix(call: Call, paths: Sequence[Path], write: Path | None) -> Exit:
    """Print the matrix, or put it into a document; the status is that of the worst report."""
    from openproto_conformance.markers import replace_between
    from openproto_conformance.report import to_matrix
    from openproto_conformance.verify import UntrustedReport, read_reports

    if not paths:
        raise Misuse("matrix wants at least one report", "`openproto conformance NAME --report FILE` writes one")
    reports: list[Report] = []
    try:
        for path in paths:
            reports += read_reports(path)
    except UntrustedReport as error:
        return report_refusal(error, call.redact, as_json=call.out.as_json)
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
