"""From the string in `provider=` to the class behind it, by entry point; first- and third-party alike."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from openproto.errors import UnknownProviderError
from openproto.provider import Provider

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "openproto.providers"

OWN = {
    "letta": "openproto_adapters.letta:Letta",
    "mem0": "openproto_adapters.mem0:Mem0",
    "memori": "openproto_adapters.memori:Memori",
    "memorysync": "openproto_adapters.memorysync:MemorySync",
    "memsy": "openproto_adapters.memsy:Memsy",
    "passthrough": "openproto_adapters.passthrough:Passthrough",
    "postgres": "openproto_adapters.postgres:Postgres",
    "sqlite": "openproto_adapters.sqlite:Sqlite",
    "supermemory": "openproto_adapters.supermemory:Supermemory",
}
"""This distribution's entry points, which no other can take. Looking for them among all that is installed would hold up
a running loop for half of what the first client of a process may (PROTOCOL 4.1)."""


def provider_names() -> list[str]:
    """Return the names of every provider that an installed distribution registers, sorted."""
    return sorted({point.name for point in _registered()})


def provider_class(name: str) -> type[Provider]:
    """Return the class registered under `name`.

    Raises UnknownProviderError with the nearest names, or ImportError with the `pip install` line of a missing extra.
    """
    point = None if name in OWN else _entry_point(name)
    value = OWN[name] if point is None else point.value
    module_name, _, attribute = value.partition(":")
    own_package = module_name.partition(".")[0]
    try:
        loaded = getattr(importlib.import_module(module_name), attribute) if point is None else point.load()
    except ModuleNotFoundError as error:
        # A module missing inside the adapter's own package is the adapter's bug, not a missing extra.
        if (error.name or "").partition(".")[0] == own_package:
            raise
        raise missing_extra(name, error.name or "?", point) from error
    if not (isinstance(loaded, type) and issubclass(loaded, Provider)):
        raise TypeError(f"provider {name!r} is registered as {value!r}, which is not a Provider class")
    for module in loaded.requires:
        if not _is_installed(module):
            raise missing_extra(name, module, point)
    return loaded


CLIENT_OPTIONS = (
    "app",
    "audit",
    "audit_reads",
    "close_timeout",
    "fallback",
    "max_concurrency",
    "mirror",
    "observers",
    "on_duplicate",
    "rerank",
    "retries",
    "timeout",
    "token_counter",
)
"""What every client takes, whatever its provider."""


def make_provider(name: str, options: Mapping[str, Any], others: Sequence[str] = ()) -> Provider:
    """Return an unopened provider; a keyword it does not take is a TypeError that lists those it does, and `others`."""
    cls = provider_class(name)
    known = provider_options(cls)
    if unknown := [option for option in options if option not in known]:
        raise TypeError(
            f"provider {name!r} got an unexpected option {unknown[0]!r}{_did_you_mean(unknown[0], [*known, *others])}; "
            f"it takes: {', '.join([*known, *others])}"
        )
    return cls(**options)


def provider_options(cls: type[Provider]) -> dict[str, inspect.Parameter]:
    """Return the constructor's parameters by name."""
    return {
        name: parameter
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    }


def missing_extra(name: str, module: str, point: EntryPoint | None = None) -> ImportError:
    """Return the error for a provider whose packages are not installed, with the line that installs them."""
    distribution = point.dist if point else None
    extras = (distribution.metadata.get_all("Provides-Extra") or []) if distribution else []
    package = distribution.name if distribution else "openproto"
    wanted = f"{package}[{name}]" if name in extras or not distribution else module
    return ImportError(f"provider {name!r} needs {module!r}: pip install '{wanted}'", name=module)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a dotted name, the package itself is missing
        return False


def _entry_point(name: str) -> EntryPoint:
    found = list({point.value: point for point in _registered() if point.name == name}.values())
    if not found:
        names = provider_names()
        raise UnknownProviderError(
            f"no provider {name!r}{_did_you_mean(name, names)}; installed: {', '.join(names) or 'none'}"
        )
    if len(found) > 1:
        owners = " and ".join(sorted(point.dist.name if point.dist else point.value for point in found))
        raise UnknownProviderError(f"provider {name!r} is registered by both {owners}; uninstall one")
    return found[0]


def _registered() -> tuple[EntryPoint, ...]:
    """Return every registered provider; looked for anew only after a package was installed or removed."""
    return _registered_in(tuple((folder, _changed_at(folder)) for folder in sys.path))


@lru_cache(maxsize=1)
def _registered_in(folders: tuple[tuple[str, int], ...]) -> tuple[EntryPoint, ...]:
    # Imported here: it takes long, and a client on a provider object never needs it.
    from importlib.metadata import entry_points

    return tuple(entry_points(group=GROUP))


def _changed_at(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _did_you_mean(name: str, known: Any) -> str:
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
