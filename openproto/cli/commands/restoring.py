"""`restore`: memories exactly as they were, from JSON Lines."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Annotated

import typer
from pydantic import ValidationError

from openproto import MemoryRecord
from openproto.cli.call import Call
from openproto.cli.coerce import explain
from openproto.cli.command import BACKEND, MOVING, command
from openproto.cli.commands.importing import opened
from openproto.cli.exits import Exit
from openproto.cli.output import count
from openproto.portable.formats.json_files import numbered
from openproto.portable.record_line import check_format

BATCH = 250


@command(MOVING, takes=BACKEND)
async def restore(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `export` wrote; - is stdin.")],
) -> Exit:
    """Write exported memories as they were: with their ids, moments, supersession, and keys.

    A memory whose id its user has already is left alone, so the same command may be run again.
    """
    outcomes: Counter[str] = Counter()
    with opened(file) as source:
        check_format(source)
        lines = numbered(source)
        async with call.client() as memory:
            while batch := list(islice(lines, BATCH)):
                records: list[tuple[int, MemoryRecord]] = []
                for number, raw in batch:
                    try:
                        records.append((number, MemoryRecord.model_validate_json(raw or b"")))
                    except ValidationError as error:
                        outcomes["refused"] += 1
                        call.out.warn(f"line {number}: is not an exported memory: {explain(error)}")
                restored = await memory.restore([record for _, record in records])
                for (number, _), each in zip(records, restored, strict=True):
                    outcomes[each.outcome] += 1
                    if each.error is not None:
                        call.out.warn(f"line {number}: {each.error}")
                call.resume = "the same command goes on from there"
    if call.out.as_json:
        call.out.json({name: outcomes[name] for name in ("restored", "exists", "refused")})
    else:
        said = f"{count(outcomes['restored'], 'memory')} restored"
        said += f", {outcomes['exists']} there already" if outcomes["exists"] else ""
        call.out.line(said + (f", {count(outcomes['refused'], 'line')} refused" if outcomes["refused"] else ""))
    return Exit.FAILED if outcomes["refused"] else Exit.OK
