"""The whole command line: every command group, and what happens round a command."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points, version
from io import TextIOWrapper
from typing import Annotated

import typer

from openproto.cli.command import app
from openproto.cli.exits import Exit
from openproto.cli.redact import Redactor
from openproto.cli.reporting import Misuse, report

GROUPS = (
    "demo",
    "providers",
    "doctor",
    "writing",
    "reading",
    "exporting",
    "importing",
    "backing_up",
    "restoring",
    "migrating",
    "mirroring",
    "upkeep",
    "bench",
    "serve",
    "ui",
    "keys",
    "mcp",
)
"""The modules of `commands/`, in the order in which `--help` shows what they hold."""

# Since 0.27 Typer contains click, and before it depended on it: the class is found the same way.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]

PLUGINS = "openproto.commands"
"""The entry point group of modules, of other distributions too, that hold further commands."""

for _group in GROUPS:
    import_module(f"openproto.cli.commands.{_group}")
for _point in sorted(entry_points(group=PLUGINS)):
    try:
        _point.load()
    except Exception as _error:
        _owner = _point.dist.name if _point.dist else _point.value
        sys.stderr.write(f"openproto: the commands of {_owner} cannot be loaded ({type(_error).__name__})\n")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"openproto {version('openproto')}\n")
        raise typer.Exit


@app.callback()
def _options(
    shown: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit status; nothing but a bug of Python itself is raised."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character shows its escape; a memory must not crash the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(args=list(arguments) or ["--help"], prog_name="openproto", standalone_mode=False)
        sys.stdout.flush()  # now, so that a reader who has left is noticed here and not at interpreter exit
    except SystemExit:
        # How typer and rich leave when the reader of `--help` has; they raise it for nothing else here.
        return report(BrokenPipeError(), Redactor(), as_json=False)
    except (Exception, KeyboardInterrupt) as error:
        fault = _misuse(error) if isinstance(error, _ClickException) else error
        return report(fault, Redactor(), as_json="--json" in arguments, debug="--debug" in arguments)
    return status if isinstance(status, int) else Exit.OK


def _misuse(error: Exception) -> Misuse:
    """Return click's complaint as ours; it names options and choices, and the words that are not a command."""
    command = "openproto"
    with contextlib.suppress(AttributeError):
        command = getattr(error, "ctx").command_path  # noqa: B009 - not every one of click's errors has it
    message = getattr(error, "format_message", error.__str__)()
    return Misuse(
        f"{command}: {message[:1].lower()}{message[1:].rstrip('.')}", f"`{command} --help` shows what it takes"
    )
