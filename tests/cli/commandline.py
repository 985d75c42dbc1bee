"""How the tests start the command line, and what they keep of its end."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

PROGRAM = [sys.executable, "-W", "error", "-m", "openproto.cli"]


@dataclass(frozen=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, str]:
        return json.loads(self.err)["error"]

    def ended(self, status: int, *words: str) -> bool:
        """Return whether it ended so and said all of that on stderr."""
        return self.status == status and all(word in self.err for word in words)


Run: TypeAlias = Callable[..., Ended]


def contents(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [content for (content,) in db.execute("SELECT content FROM memories ORDER BY created_at, id")]


def interrupt(arguments: list[str], signal_: signal.Signals, ready: Callable[[], bool]) -> Ended:
    """Start a command, signal it at its work once `ready`, and return how it ended."""
    process = subprocess.Popen([*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not ready():
        time.sleep(0.001)
    process.send_signal(signal_)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    return Ended(process.returncode, out, err)
