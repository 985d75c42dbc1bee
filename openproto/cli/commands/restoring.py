"""`restore`: memories exactly as they were, from a package or from JSON Lines."""

from __future__ import annotations

from typing import Annotated

import typer

from openproto.cli.call import Call, open_client
from openproto.cli.command import BACKEND, MOVING, command
from openproto.cli.commands.importing import opened
from openproto.cli.exits import Exit
from openproto.cli.options import Users
from openproto.cli.output import count
from openproto.cli.passphrase import ask_passphrase
from openproto.cli.reporting import report_refusal
from openproto.portable.package import PackageError
from openproto.portable.restore import Restoration


@command(MOVING, takes=BACKEND)
async def restore(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `backup` or `export` wrote; - is stdin.")],
    user: Users = None,
    include_deleted: Annotated[
        bool, typer.Option("--include-deleted", help="Bring back also what its user has deleted since.")
    ] = False,
) -> Exit:
    """Write a package, or exported memories, as they were: with their ids, moments, supersession, and keys.

    A package is checked to its end before anything is written. A memory whose id its user has already is left alone,
    so the same command may be run again.
    """
    call.resume = "the same command goes on from there"
    target = call.target()
    with opened(file) as source, call.out.progress("restoring") as bar:
        async with open_client(target.make_provider(), target.client_options) as memory:
            work = Restoration(
                memory,
                memory._session.provider,  # with its layers: what is restored reaches a mirror too
                users=user or [],
                include_deleted=include_deleted,
                app=target.client_options["app"],
                refuse=lambda line, reason: call.out.warn(f"line {line}: {reason}"),
            )
            try:
                await work.run(source, ask_passphrase, bar)
            except PackageError as error:
                return report_refusal(error, call.redact, as_json=call.out.as_json)
    counts, not_kept = work.outcomes, +work.not_kept
    done = not counts["refused"] and not counts["deleted"]
    if call.out.as_json:
        names = ("restored", "exists", "deleted", "refused")
        call.out.json({**{name: counts[name] for name in names}, **({"not_kept": not_kept} if not_kept else {})})
        return Exit.OK if done else Exit.FAILED
    said = [f"{count(counts['restored'], 'memory')} restored"]
    said += [f"{counts['exists']} there already"] if counts["exists"] else []
    said += [f"{counts['deleted']} left out, for they were deleted here"] if counts["deleted"] else []
    said += [f"{count(counts['refused'], 'line')} refused"] if counts["refused"] else []
    call.out.line(", ".join(said))
    if counts["deleted"]:
        call.out.note("--include-deleted brings back what was deleted on purpose")
    if not_kept:
        call.out.note(f"{work.name} cannot keep {' and '.join(count(n, kind) for kind, n in not_kept.items())}")
    return Exit.OK if done else Exit.FAILED
