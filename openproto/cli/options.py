"""The options that every command takes, and the types of those that several share."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

import typer

from openproto.fields import moment
from openproto.registry import provider_names

_PANEL = "Where and how (every command)"


def _providers(incomplete: str) -> list[str]:
    return [name for name in provider_names() if name.startswith(incomplete)]


@dataclass(frozen=True, slots=True)
class Common:
    """What every command takes; the rest of the configuration is the environment's (`OPENPROTO_*`)."""

    provider: Annotated[
        str | None,
        typer.Option(
            "--provider",
            "-p",
            envvar="OPENPROTO_PROVIDER",
            metavar="NAME",
            help="The backend; sqlite where nothing says otherwise.",
            autocompletion=_providers,
            rich_help_panel=_PANEL,
        ),
    ] = None
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the backend is. Other users of this machine can read a command line: keep a password in "
            "OPENPROTO_URL instead.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    path: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="The file of an embedded backend (OPENPROTO_PATH).", rich_help_panel=_PANEL),
    ] = None
    option: Annotated[
        list[str],
        typer.Option(
            "--option",
            "-o",
            metavar="NAME=VALUE",
            help="Any other option of the provider or the client; repeatable. `openproto providers --verbose` lists "
            "them.",
            rich_help_panel=_PANEL,
        ),
    ] = field(default_factory=list)
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long any one verb may take.", rich_help_panel=_PANEL),
    ] = None
    user: Annotated[
        str | None,
        typer.Option(
            "--user",
            "-u",
            envvar="OPENPROTO_USER",
            metavar="ID",
            help="Whose memories.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="For programs: JSON on stdout, and errors as the protocol's JSON envelope on stderr.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of a failure.", rich_help_panel=_PANEL),
    ] = False


def parse_moment(text: str) -> datetime:
    """Return the moment that a text names, read as everywhere else."""
    try:
        return moment(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def moment_option(name: str, help: str) -> typer.models.OptionInfo:
    """Return the option `name` that takes a moment."""
    option: typer.models.OptionInfo = typer.Option(name, metavar="MOMENT", parser=parse_moment, help=help)
    return option


Id = Annotated[str, typer.Argument(metavar="ID", help="The memory's id.")]
Query = Annotated[str, typer.Argument(metavar="QUERY", help="What to look for, in plain words.")]
Scope = Annotated[
    str | None, typer.Option("--scope", "-s", metavar="PATH", help="Only this scope and those beneath it.")
]
Tags = Annotated[
    list[str] | None,
    typer.Option("--tag", "-t", metavar="TAG", help="Only memories with this tag; repeatable: with all of them."),
]
Users = Annotated[
    list[str] | None,
    typer.Option(
        "--user",
        "-u",
        metavar="ID",
        help="Only this user; repeatable. Without it all users: OPENPROTO_USER is not read here.",
    ),
]
IfVersion = Annotated[
    str | None, typer.Option("--if-version", metavar="V", help="Only if that is still the memory's version.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Since = Annotated[datetime | None, moment_option("--since", "Only what was made at or after this moment.")]
Until = Annotated[datetime | None, moment_option("--until", "Only what was made at or before this moment.")]
AsOf = Annotated[datetime | None, moment_option("--as-of", "What was current then, instead of now.")]


def limit_option(most: int) -> typer.models.OptionInfo:
    """Return the option for how many results are wanted."""
    option: typer.models.OptionInfo = typer.Option(
        "--limit", "-n", metavar="N", help=f"At most this many, 1 to {most}."
    )
    return option
