"""The passphrase of an encrypted file: from the environment, or typed; never an argument, which others can read."""

from __future__ import annotations

import os
import sys
from getpass import getpass

from openproto.cli.reporting import Misuse

VARIABLE = "OPENPROTO_PASSPHRASE"


def ask_passphrase(*, twice: bool = False) -> str:
    """Return the passphrase; a Misuse where there is neither a variable nor a terminal, or two typings differ."""
    passphrase = os.environ.get(VARIABLE, "")
    if not passphrase:
        if not sys.stdin.isatty():
            raise Misuse("this file needs a passphrase, and there is no terminal to ask on", f"set {VARIABLE}")
        passphrase = getpass("Passphrase: ", sys.stderr)
        if twice and getpass("Once more: ", sys.stderr) != passphrase:
            raise Misuse("the two are not the same", "nothing was written; run it again")
    if not passphrase:
        raise Misuse("an empty passphrase protects nothing", f"set {VARIABLE}, or type one")
    return passphrase
