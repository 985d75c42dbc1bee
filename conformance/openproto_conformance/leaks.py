"""What a case may leave behind: nothing. Threads and file descriptors are compared before and after."""

from __future__ import annotations

import gc
import os
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_FD_FOLDERS = ("/proc/self/fd", "/dev/fd")
BACKGROUND_LOOP = "openproto-loop"  # the process's own, kept for good by `Memory`

_NUMBER = re.compile(r"\d+")

GRACE = 3.0
_COLLECTED_AFTER = 0.03


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The threads and open files of this process at a moment."""

    threads: frozenset[threading.Thread]
    files: dict[int, str]

    @classmethod
    def take(cls) -> Snapshot:
        """Look now."""
        return cls(frozenset(threading.enumerate()), open_files())

    def leaked_since(self, grace: float = GRACE) -> list[str]:
        """Return what is there now and was not then, after waiting at most `grace` seconds for it to go."""
        deadline = time.monotonic() + grace
        pause = 0.001
        while (leaks := self._leaks()) and time.monotonic() < deadline:
            time.sleep(pause)
            if pause > _COLLECTED_AFTER:  # most threads are ending anyway, and a collection costs tens of milliseconds
                gc.collect()
            pause = min(2 * pause, 0.1)
        return leaks

    def _leaks(self) -> list[str]:
        now = Snapshot.take()
        threads = Counter(
            f"thread {thread.name.rstrip('0123456789')!r}"
            for thread in now.threads - self.threads
            if thread.is_alive() and thread.name != BACKGROUND_LOOP
        )
        files = Counter(
            f"open {_kind(target)}" for fd, target in now.files.items() if self.files.get(fd) != target
        ) - Counter(f"open {_kind(target)}" for fd, target in self.files.items() if now.files.get(fd) != target)
        return [f"{count} x {what}" for what, count in sorted((threads + files).items())]


def open_files() -> dict[int, str]:
    """Return what each descriptor of this process is, as the system names it."""
    folder = next((folder for folder in _FD_FOLDERS if Path(folder).is_dir()), None)
    files: dict[int, str] = {}
    for name in os.listdir(folder) if folder else ():
        try:
            files[int(name)] = os.readlink(f"{folder}/{name}")
        except OSError:
            continue  # the descriptor of this very listing
    return files


def _kind(target: str) -> str:
    """Name a descriptor without the numbers that change from run to run."""
    kind, colon, _ = target.partition(":")
    return kind if colon else f"file {_NUMBER.sub('N', Path(target).name)}"
