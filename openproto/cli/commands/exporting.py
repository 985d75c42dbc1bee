"""`export`: all of a user's memories as JSON Lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from openproto import AsyncMemory, NotFoundError
from openproto.cli.call import Call
from openproto.cli.command import MOVING, command
from openproto.cli.options import Scope, Tags
from openproto.cli.output import count
from openproto.cli.reporting import Misuse
from openproto.portable.spool import Spool, complete_or_absent, open_private
from openproto.requests import MAX_LIST_LIMIT


@command(MOVING)
async def export(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write; - is stdout.")] = "-",
    scope: Scope = None,
    tag: Tags = None,
    force: Annotated[bool, typer.Option("--force", help="Replace FILE if it exists.")] = False,
) -> None:
    """Write all of a user's memories as JSON Lines, oldest first.

    A line is a record as the protocol spells it. FILE appears when it is complete; until then its records gather in
    FILE.part, and the same command after an interruption goes on from there.
    """
    user = call.user
    path = None if file == "-" else Path(file)
    if path is not None and path.exists() and not force:
        raise Misuse(f"{file} exists", "--force replaces it")
    target = call.target()
    header = {"export": {"provider": target.name, "user_id": user, "scope": scope, "tag": tag}}
    part = path.with_name(path.name + ".part") if path is not None else None
    call.resume = "the same command goes on from there" if part is not None else ""
    with open_private(part) as file_:
        spool = Spool(file_, header)
        async with call.client(target) as memory:
            await _gather(call, memory, spool, user, scope, tag)
        if path is None or part is None:
            _write(spool.oldest_first(), sys.stdout.buffer)
        else:
            with complete_or_absent(path) as sink:
                _write(spool.oldest_first(), sink)
            part.unlink()
    if call.out.as_json and path is not None:
        call.out.json({"exported": len(spool), "file": file})
    else:
        call.out.note(f"exported {count(len(spool), 'memory')} of {user}" + (f" to {file}" if path is not None else ""))


async def _gather(
    call: Call, memory: AsyncMemory, spool: Spool, user: str, scope: str | None, tag: list[str] | None
) -> None:
    if spool.oldest is not None:
        try:
            await memory.get(spool.oldest.id, user_id=user)
        except NotFoundError:
            # Deleted since, or this is another database than then: what was gathered proves nothing.
            spool.restart()
    with call.out.progress("reading") as bar:
        records = memory.iter(user, scope=scope, tag=tag, until=spool.until, page_size=MAX_LIST_LIMIT)
        async for record in records:
            spool.add(record)
            bar(len(spool))


def _write(lines: Iterable[bytes], sink: BinaryIO) -> None:
    for line in lines:
        sink.write(line)
    sink.flush()
