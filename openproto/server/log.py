"""The server's log on stderr: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import Any

from openproto.server.settings import ServerSettings
from openproto.server.trace import ACCESS_LOG


class Gathering(logging.Handler):
    """Writes to stderr from a thread, many lines at a time: a slow reader of the log holds no request up.

    Where it is not read at all, the oldest of 10,000 waiting lines are dropped.
    """

    EVERY = 0.05

    def __init__(self) -> None:
        super().__init__()
        self._waiting: deque[logging.LogRecord] = deque(maxlen=10_000)
        self._arrived = threading.Event()
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record."""
        self._waiting.append(record)
        if not self._arrived.is_set():
            self._arrived.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="openproto-log", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what waits; called at the end of the process, too."""
        with self._writing:
            lines: list[str] = []
            while self._waiting:
                lines.append(self.format(self._waiting.popleft()))
            with suppress(OSError, ValueError):  # the reader has gone
                sys.stderr.write("".join(f"{line}\n" for line in lines))
                sys.stderr.flush()

    def _run(self) -> None:
        while self._arrived.wait():
            time.sleep(self.EVERY)
            self._arrived.clear()
            self.flush()


class JsonFormatter(logging.Formatter):
    """One object a line; the parts of an access line are members of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {"time": _moment(record), "level": record.levelname.lower(), "logger": record.name}
        if record.name == ACCESS_LOG and isinstance(record.args, dict):
            line.update(record.args)
        else:
            line["message"] = record.getMessage()
        return json.dumps(line, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`<time> <level> <message>`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return f"{_moment(record)} {record.levelname.lower()} {record.getMessage()}"


def log_config(settings: ServerSettings) -> dict[str, Any]:
    """Return what `logging.config.dictConfig` makes the log of; uvicorn's own chatter is left out."""
    formatter = JsonFormatter if settings.log_format == "json" else TextFormatter
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": formatter}},
        "handlers": {"stderr": {"()": Gathering, "formatter": "line"}},
        "loggers": {
            "openproto": {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
        # Libraries in the same lines, without the tracebacks that they like to print.
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }


def _moment(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


@lru_cache(maxsize=2)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
