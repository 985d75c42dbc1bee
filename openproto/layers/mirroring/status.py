"""How far a mirror is: read from its journals, by whoever may read the files, without opening either side."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from openproto.errors import ProviderError
from openproto.layers.mirroring.journal import journals
from openproto.layers.mirroring.pad import pad_of, read


@dataclass(slots=True)
class MirrorStatus:
    """The figures of all journals of one configuration, since each was made."""

    journals: int = 0
    backlog: int = 0
    oldest_seconds: float = 0.0
    """Age of the oldest entry that waits."""
    applied: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By the error's code, how many records the mirror does not take as they are now."""
    samples: int = 0
    differences: int = 0
    error: str | None = None
    """The code of the error that the backlog waits for; None while the mirror takes entries."""
    error_of: str | None = None
    """Which provider failed."""
    error_at: str | None = None

    @property
    def state(self) -> str:
        """One word: "failing" while entries wait for a fault to pass, "different", "behind", or "in step"."""
        if self.error is not None and self.backlog:
            return "failing"
        if self.refused or self.differences:
            return "different"
        return "behind" if self.backlog else "in step"


def mirror_status(path: Path) -> MirrorStatus:
    """Return the status of the mirror whose journals are at `path`; of none where there is no file."""
    status = MirrorStatus()
    refused: Counter[str] = Counter()
    for each in journals(path):
        try:
            facts, pending, codes = _read(each)
        except sqlite3.Error as error:
            raise ProviderError(
                f"{each.name} cannot be read as a mirror's journal ({type(error).__name__}); name another file"
            ) from error
        status.journals += 1
        status.backlog += pending[0]
        if pending[1] is not None:
            status.oldest_seconds = max(status.oldest_seconds, time.time() - pending[1])
        refused.update(codes)
        status.applied += facts.get("applied", 0)
        status.samples += facts.get("samples", 0)
        status.differences += facts.get("differences", 0)
        if facts.get("error") is not None:
            status.error, status.error_of, status.error_at = (facts[n] for n in ("error", "error_of", "error_at"))
    status.refused = dict(refused)
    return status


def _read(path: Path) -> tuple[dict[str, Any], tuple[int, float | None], dict[str, int]]:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        facts = dict(db.execute("SELECT name, value FROM facts"))
        pending = dict(db.execute("SELECT seq, at FROM pending"))
        pending |= {row[0]: row[-1] for row in read(pad_of(path))}
        return (
            facts,
            (len(pending), min(pending.values(), default=None)),
            dict(db.execute("SELECT code, count(*) FROM refused GROUP BY code")),
        )
    finally:
        db.close()
