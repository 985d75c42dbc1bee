"""The server's log on stderr: lines for people, or one JSON object a line."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from openproto.server.settings import ServerSettings
from openproto.server.trace import ACCESS_FIELDS, ACCESS_LOG


class JsonFormatter(logging.Formatter):
    """One object a line; the parts of an access line as members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {"time": _moment(record), "level": record.levelname.lower(), "logger": record.name}
        if record.name == ACCESS_LOG and isinstance(record.args, tuple):
            line.update(zip(ACCESS_FIELDS, record.args, strict=True))
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
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {
            "openproto": {"handlers": ["stderr"], "level": level, "propagate": False},
            "uvicorn": {"handlers": ["stderr"], "level": "WARNING", "propagate": False},
        },
    }


def _moment(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
