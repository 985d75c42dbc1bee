"""Importing an SDK in a thread without stopping the event loop.

What holds the loop up is the garbage collector. Objects that an import makes stay, and there are many: each time they
have grown by a quarter it looks through all that the process has, and meanwhile no thread runs, for 20 to 110 ms.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_FULL = 2
"""The generation whose collection looks at everything."""


@contextmanager
def large_import() -> Iterator[None]:
    """Import in here, in a thread, what is large; also what its first use imports.

    If there was something new to import, `gc.freeze()` then takes all objects that there are out of the collector's
    sight, and while it lasts at the start of any full collection. Young objects are collected as ever. The process's
    later collections thereby stay short, too: after importing mem0 a full one takes 110 ms, and a busy program causes
    several a minute.

    The price: the collector cannot tell who made an object. A cycle that the program had made before, and drops later,
    stays until the process ends or calls `gc.unfreeze()`; what is in no cycle is freed as ever. It is paid once for
    each SDK, and is next to nothing where a program opens its clients when it starts.
    """
    known = len(sys.modules)
    process = os.getpid()

    def freeze() -> None:
        if len(sys.modules) > known:
            gc.freeze()

    def spare(phase: str, info: dict[str, int]) -> None:
        # A child that is forked meanwhile inherits this for good, but not the thread that imports.
        if phase == "start" and info["generation"] == _FULL and os.getpid() == process:
            freeze()

    gc.callbacks.append(spare)
    try:
        yield
    finally:
        gc.callbacks.remove(spare)
        freeze()


@contextmanager
def environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Set variables for what reads them while it is imported or made, and then put back what they were."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def import_async_http() -> None:
    """Import, in a thread, what httpx's asynchronous clients would import on the loop when they first connect."""
    import anyio

    anyio.run(anyio.sleep, 0)
