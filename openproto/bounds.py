"""Numbers among the options of a constructor: checked when the object is made, not when a number is first used."""

from __future__ import annotations

import math


def check_whole(least: int = 1, /, **options: int) -> None:
    """Raise TypeError for an option that is no int, or a bool, which Python takes for one; ValueError below `least`."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be a whole number, and is a {type(value).__name__}")
        if value < least:
            raise ValueError(f"{name} must be {least} or more")


def check_seconds(*, or_zero: bool = False, **options: float) -> None:
    """Raise TypeError for an option that is no number, ValueError for one that is no length of time."""
    for name, value in options.items():
        check_number(**{name: value})
        if value == 0 and not or_zero:
            raise ValueError(f"{name} must be more than 0 seconds")


def check_number(**options: float) -> None:
    """Raise TypeError for an option that is no number, ValueError for one below 0, an infinite one, or NaN."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, and is a {type(value).__name__}")
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be 0 or more, and finite")
