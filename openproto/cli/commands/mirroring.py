"""`mirror`: how far the second provider of `mirror=` is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, Group, app, command
from openproto.cli.exits import Exit
from openproto.cli.output import count
from openproto.cli.reporting import Misuse
from openproto.client.layering import mirror_journal, mirror_status

if TYPE_CHECKING:
    from openproto.layers.mirroring.status import MirrorStatus

mirrors = typer.Typer(
    cls=Group, help="Look after a mirror, the second provider that every write reaches too.", no_args_is_help=True
)
app.add_typer(mirrors, name="mirror", rich_help_panel=CARE)

_EXITS = {"in step": Exit.OK, "behind": Exit.OK, "different": Exit.FAILED, "failing": Exit.UNAVAILABLE}


@command(CARE, takes=BACKEND, group=mirrors)
async def status(
    call: Call,
    journal: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The journal; else the one that OPENPROTO_MIRROR leads to."),
    ] = None,
) -> Exit:
    """Say how many writes the mirror waits for, why, and what sampled reads have found.

    Reads the journal alone, next to the clients that write it. Exits with 0 for "in step" and "behind", with 1 where
    records differ or were refused, and with 5 while the mirror takes nothing.
    """
    found = mirror_status(journal or _journal(call))
    if not found.journals:
        raise Misuse("no client has mirrored anything yet: there is no journal", "name another one with --journal FILE")
    if call.out.as_json:
        call.out.json({"state": found.state, **asdict(found)})
    else:
        _say(call, found)
    return _EXITS[found.state]


def _journal(call: Call) -> Path:
    target = call.target()
    mirror = target.client_options.get("mirror")
    if mirror is None:
        raise Misuse("which mirror? neither OPENPROTO_MIRROR nor --journal names one")
    return mirror_journal(target.make_provider(), mirror)


def _say(call: Call, found: MirrorStatus) -> None:
    line = call.out.line
    line(found.state)
    waiting = f", the oldest for {found.oldest_seconds:.0f} s" if found.backlog else ""
    line(f"{count(found.backlog, 'entry')} waiting{waiting}; {count(found.applied, 'state')} brought so far")
    if found.error is not None and found.backlog:
        line(f"{found.error_of} failed with {found.error} at {found.error_at}")
    for code, number in found.refused.items():
        line(f"{count(number, 'memory')} refused with {code}")
    line(f"{count(found.samples, 'read')} compared, {count(found.differences, 'difference')}")
