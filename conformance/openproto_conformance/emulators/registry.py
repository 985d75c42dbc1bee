"""From the name of an emulated vendor to its class, imported when it is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import cast

from openproto_conformance.emulators.emulator import Emulator

_HOMES = {
    "letta": "letta:Letta",
    "mem0": "mem0:Mem0Platform",
    "memori": "memori:Memori",
    "memorysync": "memorysync:MemorySync",
    "memsy": "memsy:Memsy",
    "supermemory": "supermemory:Supermemory",
}
"""The name of each emulator, its module in this package, and its class."""

EMULATORS = tuple(_HOMES)


def emulator_class(name: str) -> type[Emulator]:
    """Return the class of the emulator called `name`; a LookupError with the nearest name, or all of them."""
    if name not in _HOMES:
        near = difflib.get_close_matches(name, EMULATORS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(EMULATORS)}"
        raise LookupError(f"no emulator {name!r}{hint}")
    module, _, cls = _HOMES[name].partition(":")
    return cast(type[Emulator], getattr(import_module(f"{__package__}.{module}"), cls))
