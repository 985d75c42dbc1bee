"""Faults of memory around an LLM call: never raised into it, logged once a minute each, in words without content."""

from __future__ import annotations

import logging
import threading
import time

from openproto import OpenProtoError

_log = logging.getLogger("openproto.integrations.llm")

LOG_EVERY = 60.0


class FaultLog:
    """Logs the first fault of a kind at once, and how many more there were at most once in `LOG_EVERY` seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, float] = {}
        self._silenced: dict[str, int] = {}

    def report(self, what: str, error: Exception | None = None) -> None:
        """Log that `what` happened, because of `error`."""
        now = time.monotonic()
        with self._lock:
            if now - self._last.get(what, -LOG_EVERY) < LOG_EVERY:
                self._silenced[what] = self._silenced.get(what, 0) + 1
                return
            self._last[what] = now
            silenced = self._silenced.pop(what, 0)
        # Only our own messages are known to hold no content.
        why = f": {error.message}" if isinstance(error, OpenProtoError) else ""
        kind = f" ({type(error).__name__}{why})" if error is not None else ""
        more = f"; and {silenced} more like it since the last report" if silenced else ""
        _log.warning("memory: %s%s%s", what, kind, more)
