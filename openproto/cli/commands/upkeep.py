"""What the owner of a backend does: `reindex`, `index`, `schema`."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from openproto import OpenProtoError, Provider
from openproto.cli.call import Call
from openproto.cli.command import BACKEND, CARE, command
from openproto.cli.options import Yes
from openproto.cli.output import count
from openproto.cli.reporting import Misuse

T = TypeVar("T")


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
    call.resume = "the same command starts it again"
    with call.out.progress("re-embedding") as bar:
        shown = _Shown(call, bar)
        try:
            await _alone(provider, provider.reindex(shown))
        except ValueError as error:
            if shown.total:
                raise
            raise Misuse(str(error)) from error  # an embedder's name, which only reindexing looks at
    if call.out.as_json:
        call.out.json({"reindexed": shown.total})
    else:
        call.out.line(f"re-embedded {count(shown.total, 'memory')}")


@command(CARE)
async def index(
    call: Call,
    drop: Annotated[bool, typer.Option("--drop", help="Drop the index: searches are exact again.")] = False,
) -> None:
    """Make an index for the searches of one user with very many memories, while the backend is in use.

    `openproto doctor` names such users. Says at the end how many of the ten best results of an exact search are found
    by the index, measured with some of the user's own memories. May be stopped at any time; the same command goes on.
    """
    provider = call.target().make_provider()
    call.resume = "the same command goes on"
    with call.out.progress("indexing") as bar:
        recall = await _alone(provider, provider.index_user(call.user, _Shown(call, bar), drop=drop))
    if call.out.as_json:
        call.out.json({"recall": recall})
    elif recall is None:
        call.out.line("dropped the index")
    else:
        call.out.line(f"made the index: it finds {recall:.0%} of what an exact search finds")


class _Shown:
    """Shows how far the work is, and says so where it is interrupted."""

    def __init__(self, call: Call, bar: Callable[[int, int], None]) -> None:
        self._call, self._bar = call, bar
        self.total = 0

    def __call__(self, progress: tuple[int, int]) -> None:
        done, self.total = progress
        self._call.resume = f"{done} of {self.total} are done, and the same command goes on from there"
        self._bar(done, self.total)


async def _alone(provider: Provider, work: Awaitable[T]) -> T:
    """Return what a provider does that no client has opened."""
    try:
        return await work
    except OpenProtoError as error:
        error.provider = error.provider or provider.name  # no client stands between that would have said so
        raise
    finally:
        await provider.close()


@command(CARE, takes=BACKEND)
async def schema(
    call: Call,
    distribute: Annotated[
        bool, typer.Option("--distribute", help="With the SQL that spreads the tables over a Citus cluster.")
    ] = False,
) -> None:
    """Print the SQL that makes the backend's tables, for a database owner to run."""
    provider = call.target().make_provider()
    script = provider.schema_script(distribute=True) if distribute else provider.schema_script()
    if call.out.as_json:
        call.out.json({"sql": script})
    else:
        sys.stdout.write(script.rstrip("\n") + "\n")
