"""From `--option name=text` to what a constructor takes, by the constructor's own annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_type_hints

from openproto.cli.reporting import Misuse


def pairs(texts: Iterable[str], flag: str) -> dict[str, str]:
    """Return the pairs that `name=value` texts spell; a later one wins. The value is everything after the first `=`."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            # The text may be a secret whose name was forgotten: it is not repeated.
            raise Misuse(f"{flag} wants name=value; one of those given has no name or no '='")
        found[name] = value
    return found


def coerce(texts: Mapping[str, str], *constructors: Callable[..., Any]) -> dict[str, Any]:
    """Return `texts` as the types that the first constructor with such a keyword wants.

    A name that none of them takes stays text, for the registry to refuse with the names there are; a value of another
    type is a Misuse that names the option and never repeats the value.
    """
    wanted: dict[str, Any] = {}
    for constructor in reversed(constructors):
        hints = get_type_hints(constructor, include_extras=True)
        wanted |= {name: hints.get(name, Any) for name in inspect.signature(constructor).parameters}
    return {name: _coerce(name, text, wanted[name]) if name in wanted else text for name, text in texts.items()}


def _coerce(name: str, text: str, wanted: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    # Protocols and other plain classes are allowed: only the texts next to them in a union count here.
    adapter = TypeAdapter[Any](wanted, config=ConfigDict(arbitrary_types_allowed=True))
    try:
        return adapter.validate_python(text)
    except ValidationError as plain:
        try:
            return adapter.validate_json(text)  # a list or a mapping is spelt as JSON
        except ValidationError:
            raise Misuse(f"--option {name}: {explain(plain)}") from None


def explain(error: Any) -> str:
    """Say what a pydantic ValidationError found, without the input, which may be a secret."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(dict.fromkeys(fault["msg"] for fault in faults))
