"""What a process does first that was forked from this one: the parent's threads and locks are not its own."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_forked_child(function: Callable[[], None]) -> Callable[[], None]:
    """Call the function in every child that is forked from now on, on systems that fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
    return function
