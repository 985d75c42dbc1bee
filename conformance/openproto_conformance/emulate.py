"""`openproto emulate`: a hosted vendor on loopback, for as long as the command runs."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from openproto.cli.call import Call
from openproto.cli.command import CARE, command
from openproto.cli.exits import Exit
from openproto.cli.reporting import Misuse
from openproto.registry import missing_extra

if TYPE_CHECKING:
    from openproto_conformance.emulators.counters import Exchange
    from openproto_conformance.emulators.emulator import Emulator


@command(CARE)
async def emulate(
    call: Call,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The vendor; without one, the names there are.", show_default=False),
    ] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0 takes a free one.")] = 0,
    lag: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="How long the vendor takes to process what it accepts.")
    ] = 0.03,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print a line for each request.")] = False,
) -> Exit:
    """Run a hosted vendor's API on this machine, for your own tests, until Ctrl-C.

    Everything is kept in memory and gone afterwards. Where OPENPROTO_SPECS names a folder with the vendor's OpenAPI
    document, every request and every answer is checked against it.

    The exit status is 0 after Ctrl-C; 1 where an answer was not what the document says;
    2 for an unknown vendor, and for a port that is taken.
    """

    def tell(exchange: Exchange) -> None:
        status = exchange.status or "no answer"
        if call.out.as_json:
            call.out.json(exchange._asdict())
        else:
            call.out.line(f"{exchange.method} {exchange.path} {status}")
        sys.stdout.flush()

    emulator = emulator_named(name)(lag=lag)
    if verbose:
        emulator.counters.tell = tell
    try:
        emulator.start(port)
    except OSError as error:
        raise Misuse(f"port {port} cannot be had: {error.strerror}") from error
    try:
        _announce(call, emulator)
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        return report_violations(call, emulator)
    finally:
        emulator.stop()
    return Exit.OK


def emulator_named(name: str) -> type[Emulator]:
    """Return the class of the emulator called `name`; a Misuse that lists the names where there is none."""
    try:
        from openproto_conformance.emulators.registry import emulator_class
    except ModuleNotFoundError as error:
        raise missing_extra("conformance", error.name or "?") from error
    try:
        return emulator_class(name)
    except LookupError as error:
        raise Misuse(str(error)) from error


def report_violations(call: Call, emulator: Emulator) -> Exit:
    """Say which answers were not what the document says, and return the exit status for that."""
    for violation in emulator.violations:
        call.out.warn(f"the {emulator.name} emulator broke the vendor's document: {violation}")
    return Exit.FAILED if emulator.violations else Exit.OK


def _announce(call: Call, emulator: Emulator) -> None:
    options = emulator.provider_options()
    if call.out.as_json:
        start = {"name": emulator.name, "url": emulator.url, "provider_options": options}
        call.out.json({**start, "checked_against": emulator.checked_against})
    else:
        shell = " ".join(f"--option {name}={value}" for name, value in options.items())
        python = ", ".join(f"{name}={value!r}" for name, value in options.items())
        call.out.line(f"{emulator.name} at {emulator.url}, {emulator.checked_against}", "bold")
        call.out.line(f"openproto doctor --provider {emulator.name} {shell}")
        call.out.line(f'AsyncMemory("{emulator.name}", {python})')
        call.out.note("Ctrl-C ends it.")
    sys.stdout.flush()
