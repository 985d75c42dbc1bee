"""The command line, `openproto`: every verb, a demonstration, a doctor, and moving memories in and out.

A command group is one file in `commands/`, named in `app.py`; what all commands share stands here, each in its file:
the options (`options.py`), the call they make up (`call.py`), what is printed (`output.py`, `clean.py`), and how a
command ends (`exits.py`, `reporting.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

_NEEDS = ("typer", "rich")
_MISSING = 7  # exits.Exit.MISSING, which a test compares: nothing of this package can be imported here yet


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (default: the process's own) and return its exit status."""
    try:
        for name in _NEEDS:  # each by itself: the app would miss the second only when it prints
            import_module(name)
        from openproto.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDS:
            raise
        sys.stderr.write(f"the openproto command needs {error.name!r}: pip install 'openproto[cli]'\n")
        return _MISSING
    except KeyboardInterrupt:
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)
