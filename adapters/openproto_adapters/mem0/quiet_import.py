"""Importing mem0 without what its import does on its own: telemetry, and files in the home directory."""

from __future__ import annotations

import logging
import os
import threading
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

from openproto.blocking.imports import environment, large_import

_LEVELS = {
    "mem0": logging.WARNING,  # at INFO it logs the texts of memories
    "mem0.client.utils": logging.CRITICAL,  # logs as errors what it raises, 404 among it
    "mem0.utils.spacy_models": logging.ERROR,  # advises to install what no score here uses
}
_importing = threading.Lock()


def import_mem0() -> Any:
    """Return the module `mem0`; takes seconds, so call it in a thread.

    mem0 reads both variables while it is imported, and writes a file with an id of this machine into MEM0_DIR, by
    default `~/.mem0`, even with telemetry off. A variable that is set already stays.
    """
    with _importing, TemporaryDirectory(prefix="openproto-mem0-") as scratch, large_import():
        wanted = {"MEM0_TELEMETRY": "false", "MEM0_DIR": scratch}
        with environment({name: value for name, value in wanted.items() if not os.environ.get(name)}):
            mem0 = import_module("mem0")
        for name, level in _LEVELS.items():
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:  # a level that the program has set itself stays
                logger.setLevel(level)
        return mem0
