"""How the command line wants the suite to be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class How(NamedTuple):
    """The options of a run, whatever provider it is of."""

    only: Sequence[str]
    deviations: Mapping[str, str]
    patience: float
    seed: int
    quick: bool
    emulated: bool
    audit: str | None
    times: bool
    processes: int | None
