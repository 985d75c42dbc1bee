"""What the owner of a backend does: `reindex`, `schema`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from openproto import OpenProtoError
from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.options import Yes
from openproto.cli.output import count
from openproto.cli.reporting import Misuse


@command(CARE, takes=BACKEND)
async def reindex(
    call: Call,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="auto, local, none, or openai/MODEL; else OPENPROTO_EMBEDDER, else the provider's default.",
        ),
    ] = None,
    yes: Yes = False,
) -> None:
    """Give every memory the vectors of another embedder, while the backend is in use.

    May be stopped at any time; the same command goes on where it was.
    """
    target = call.target(**({"embedder": embedder} if embedder else {}))
    if target.provider_options.get("embedder") == "none":
        call.confirm("drop all vectors? Search then finds words alone, until another reindex", yes=yes)
    provider = target.make_provider()
    total = 0

    def show(progress: tuple[int, int]) -> None:
        nonlocal total
        done, total = progress
        call.resume = f"{done} of {total} are done, and the same command goes on from there"
        bar(done, total)

    call.resume = "the same command starts it again"
    with call.out.progress("re-embedding") as bar:
        try:
            await provider.reindex(show)
        except OpenProtoError as error:
            error.provider = error.provider or provider.name  # no client stands between that would have said so
            raise
        except ValueError as error:
            if total:
                raise
            raise Misuse(str(error)) from error  # an embedder's name, which only reindexing looks at
        finally:
            await provider.close()
    if call.out.as_json:
        call.out.json({"reindexed": total})
    else:
        call.out.line(f"re-embedded {count(total, 'memory')}")


@command(CARE, takes=BACKEND)
async def schema(call: Call) -> None:
    """Print the SQL that makes the backend's tables, for a database owner to run."""
    provider = call.target().make_provider()
    script = provider.schema_script()
    if call.out.as_json:
        call.out.json({"sql": script})
    else:
        sys.stdout.write(script.rstrip("\n") + "\n")
