"""Making a command: a function, mostly async, whose first argument is the `Call`, and whose others are its options."""

from __future__ import annotations

import asyncio
import inspect
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from openproto.cli.call import Call
from openproto.cli.exits import MEANINGS, Exit
from openproto.cli.options import Common
from openproto.cli.reporting import report

Body = TypeVar("Body", bound=Callable[..., Awaitable[Exit | None] | Exit | None])

ALL = frozenset(field.name for field in fields(Common))
OUTPUT = frozenset({"json", "debug"})
"""The options of a command that opens no backend."""

_PANELS = 100
"""Columns that the panels of the help need; in fewer they would cut the names of options."""

BACKEND = ALL - {"user"}
"""The options of a command that is about a backend and no user of it."""

MEMORIES, MOVING, CARE = "Memories", "Moving memories", "Looking after the backend"


class _Command(TyperCommand):
    """A command whose help fits."""

    def get_params(self, ctx: Any) -> Any:
        """Return what the command takes."""
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _fit(self)
        super().format_help(ctx, formatter)


class Group(TyperGroup):
    """A group of commands, likewise."""

    def get_params(self, ctx: Any) -> Any:
        """Return what the group takes."""
        return _without_types(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        _fit(self)
        super().format_help(ctx, formatter)


def _fit(command: TyperCommand | TyperGroup) -> None:
    if shutil.get_terminal_size().columns < _PANELS:
        command.rich_markup_mode = None


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # its name says enough, and its metavar is its name
        elif param.is_flag and param.metavar is None:
            param.metavar = ""
    return params


app = typer.Typer(
    name="openproto",
    cls=Group,
    help="One command line over every AI-memory backend: sqlite, Postgres, and every other that is installed.",
    epilog="\n".join(
        [
            "Exit status:",
            *(f"  {status.value:>3}  {meaning}" for status, meaning in MEANINGS.items()),
            "",
            "Results are laid out for reading on a terminal. Into a pipe goes one tab-separated line a record, without "
            "headings; with --json, the protocol's JSON. What no option says comes from the environment: "
            "OPENPROTO_PROVIDER, OPENPROTO_URL, OPENPROTO_API_KEY, OPENPROTO_PATH, OPENPROTO_EMBEDDER, OPENPROTO_USER.",
        ]
    ),
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(
    panel: str, *, name: str | None = None, takes: frozenset[str] = ALL, group: typer.Typer = app
) -> Callable[[Body], Body]:
    """Register a body as a command of `app` or of a group of it, named after it.

    A command takes those of the options of `Common` that `takes` names too, unless the body has a parameter of that
    name itself. What the body raises is reported and becomes the exit status; what it returns is the status otherwise,
    None being success.
    """

    def register(body: Body) -> Body:
        own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
        wanted = takes - {parameter.name for parameter in own}
        shared = [
            parameter
            for parameter in inspect.signature(Common, eval_str=True).parameters.values()
            if parameter.name in wanted
        ]

        def run(**values: Any) -> None:
            call = Call(Common(**{parameter.name: values.pop(parameter.name) for parameter in shared}))
            raise typer.Exit(_run(call, body, values))

        parameters = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*own, *_made(shared))]
        run.__doc__ = body.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        group.command(name or body.__name__, cls=_Command, rich_help_panel=panel)(run)
        return body

    return register


def _run(call: Call, body: Callable[..., Any], values: dict[str, Any]) -> Exit:
    try:
        # A body that is not async runs its own loop.
        found: Exit | None = (
            asyncio.run(body(call, **values)) if inspect.iscoroutinefunction(body) else body(call, **values)
        )
        return found or Exit.OK
    except (Exception, KeyboardInterrupt, asyncio.CancelledError) as error:
        common = call.common
        return report(error, call.redact, as_json=common.json, debug=common.debug, resume=call.resume)


def _made(shared: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the shared parameters with their default factories called, as a signature wants defaults."""
    made = {field.name: field.default_factory() for field in fields(Common) if callable(field.default_factory)}
    return [parameter.replace(default=made.get(parameter.name, parameter.default)) for parameter in shared]
